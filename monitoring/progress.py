"""Progress of long steps: bars on a terminal, else a log line at the start, every few seconds and at the end.

with Progress() as progress:
    task = progress.task("training", total=120)
    task.update(7, loss=2.31, tokens_per_s=9100.0, eta_s=64.0)
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Self, TextIO

from rich import progress as bars

from monitoring.terminal import console_on

MEAN_STEPS: Final = 10
_LEVEL_SHARE: Final = 0.002  # a smaller change of the mean counts as level

log = logging.getLogger(__name__)


class Trend:
    """The mean of the last ten losses, and where it is going compared with the ten before."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=2 * MEAN_STEPS)

    def add(self, value: float) -> None:
        """Take the next loss."""
        self._values.append(value)

    @property
    def mean(self) -> float:
        """Return the mean of the last ten values."""
        last = list(self._values)[-MEAN_STEPS:]
        return sum(last) / len(last)

    @property
    def arrow(self) -> str:
        """Return ↓, ↑ or →; → too while there is nothing to compare with."""
        before = list(self._values)[:-MEAN_STEPS]
        if not before:
            return "→"
        change = self.mean - sum(before) / len(before)
        if abs(change) <= _LEVEL_SHARE * abs(self.mean):
            return "→"
        return "↓" if change < 0 else "↑"


def format_duration(seconds: float) -> str:
    """Return 42s, 3m07s or 2h05m."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


class Task:
    """One long step. Only the thread that made it may update it."""

    def __init__(self, name: str, total: int | None, owner: "Progress") -> None:
        self.name, self.total, self.step = name, total, 0
        self.figures: dict[str, Any] = {}
        self.bar: bars.TaskID | None = None
        self.logged_s = -1.0
        self._trend = Trend()
        self._owner = owner
        self._started_s = owner.now()

    def update(self, step: int, total: int | None = None, **figures: Any) -> None:
        """Set the step done and newer figures; known ones are loss, tokens_per_s and eta_s."""
        self.step, self.total = step, self.total if total is None else total
        self.figures.update(figures)
        if "loss" in figures:
            self._trend.add(figures["loss"])
        self._owner.show(self)

    def done(self) -> None:
        """Say that it is over, even if it stopped early."""
        self._owner.finish(self)

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since it began."""
        return self._owner.now() - self._started_s

    @property
    def eta_s(self) -> float | None:
        """Return the expected seconds to the end: the given figure, else the mean pace so far."""
        if "eta_s" in self.figures:
            return float(self.figures["eta_s"])
        if not self.total or not self.step:
            return None
        return self.elapsed_s / self.step * max(0, self.total - self.step)

    def describe(self, *, ended: bool = False) -> str:
        """Return the figures in one line, with the time left unless it has ended."""
        figures = dict(self.figures)
        figures.pop("eta_s", None)
        parts = []
        if "loss" in figures:
            parts.append(f"loss {figures.pop('loss'):.4f} {self._trend.arrow} mean {self._trend.mean:.4f}")
        if "tokens_per_s" in figures:
            parts.append(f"{figures.pop('tokens_per_s'):,.0f} tokens/s")
        parts += [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
        ]
        if self.eta_s and not ended:
            parts.append(f"ETA {format_duration(self.eta_s)}")
        return ", ".join(parts)


class Progress:
    """Shows any number of tasks at once, from any thread."""

    def __init__(
        self, *, stream: TextIO | None = None, every_s: float = 10.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Show on `stream` (standard error); without a terminal log each task at most every `every_s` seconds."""
        console = console_on(stream)
        self.now = now
        self._every_s = every_s
        self._lock = threading.Lock()
        self._tasks: list[Task] = []
        self._bars = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._bars = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(bar_width=24),
                bars.MofNCompleteColumn(),
                bars.TextColumn("{task.fields[figures]}", style="dim"),
                console=console,
            )

    def __enter__(self) -> Self:
        """Start showing."""
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs, and leave the screen as it is."""
        for task in list(self._tasks):
            self.finish(task)
        if self._bars:
            self._bars.stop()

    def task(self, name: str, total: int | None = None) -> Task:
        """Begin a task of `total` steps (None: not known)."""
        task = Task(name, total, self)
        with self._lock:
            self._tasks.append(task)
            if self._bars:
                task.bar = self._bars.add_task(name, total=total, figures="")
        self.show(task)
        return task

    def show(self, task: Task) -> None:
        """Show a task's present figures, now or with the next line that is due."""
        with self._lock:
            if self._bars and task.bar is not None:
                self._bars.update(task.bar, completed=task.step, total=task.total, figures=task.describe())
            elif task.logged_s < 0 or self.now() - task.logged_s >= self._every_s:
                self._log(task, "progress")

    def finish(self, task: Task) -> None:
        """Show a task for the last time; a second call does nothing."""
        with self._lock:
            if task not in self._tasks:
                return
            self._tasks.remove(task)
            if not self._bars:
                self._log(task, "progress_done")
            elif task.bar is not None:
                self._bars.update(
                    task.bar,
                    completed=task.step,
                    figures=f"{task.describe(ended=True)} ({format_duration(task.elapsed_s)})",
                )
                self._bars.stop_task(task.bar)

    def _log(self, task: Task, event: str) -> None:
        task.logged_s = self.now()
        of = f"/{task.total}" if task.total is not None else ""
        fields = {"task": task.name, "step": task.step, "total": task.total, **task.figures}
        log.info(
            "%s %d%s %s",
            task.name,
            task.step,
            of,
            task.describe(ended=event == "progress_done"),
            extra={"event": event, "figures": fields},
        )
