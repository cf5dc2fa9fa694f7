"""The loss of the open run as a curve of bounded size: every step while it is short, every few of them later on."""

from dataclasses import dataclass, field
from typing import Any

from daemon.job import Event

_MOST_POINTS = 400


@dataclass(slots=True)
class Curve:
    """Steps and evaluations of one run as its child told them; since this daemon follows it."""

    run: str = ""
    start: float | None = None
    """Validation loss before the first step: that of what the run continues, the incumbent or the base."""
    _train: list[tuple[int, float]] = field(default_factory=list)
    _evaluations: list[tuple[int, float]] = field(default_factory=list)
    _stride: int = 1

    def take(self, run: str, event: Event) -> None:
        """Take an event of a run's child; another run begins a new curve, one that resumes goes back to its step."""
        kind, step, loss = event.get("event"), event.get("step"), event.get("loss")
        if kind not in ("step", "eval") or not isinstance(step, int) or not isinstance(loss, int | float):
            return
        if run != self.run:
            self.run, self.start, self._train, self._evaluations, self._stride = run, None, [], [], 1
        if kind == "eval":
            self._evaluations = [point for point in self._evaluations if point[0] < step] + [(step, float(loss))]
            self.start = float(loss) if step == 0 else self.start
        elif step % self._stride == 0:
            self._add(step, float(loss))

    def _add(self, step: int, loss: float) -> None:
        while self._train and self._train[-1][0] >= step:
            self._train.pop()
        self._train.append((step, loss))
        if len(self._train) > _MOST_POINTS:
            self._stride *= 2
            self._train = [point for point in self._train if point[0] % self._stride == 0]

    def to_json(self) -> dict[str, Any]:
        """Return the curve; its lists are its own."""
        return {"train": list(self._train), "eval": list(self._evaluations), "start": self.start}
