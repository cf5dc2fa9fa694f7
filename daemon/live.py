"""What the daemon is doing right now: written by the tick and its child's events, read by the HTTP server."""

import logging
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from daemon.curve import Curve
from daemon.expectation import Expectation
from daemon.files import describe_error
from daemon.job import Event
from daemon.policy import Facts, num_needed
from daemon.speed import Speed
from monitoring import record
from monitoring.progress import Progress, Task
from schema.runs import CANCELLED, Run

log = logging.getLogger(__name__)
_STEP_FIELDS = (
    *("step", "total", "epoch", "loss", "smoothed_loss", "lr", "grad_norm", "tokens", "tokens_per_s", "eta_s"),
    *("data_wait_s", "micro_batch", "flops", "mfu"),
)
_PLAN_FIELDS = ("micro_batch", "accumulation", "checkpointed_layers", "planned_bytes")


@dataclass(slots=True)
class Live:
    """The daemon's figures of this moment; metrics and progress bars follow them."""

    progress: Progress
    speed: Speed = field(default_factory=Speed)
    last_tick: float | None = None  # monotonic
    database_error: str | None = None
    leading: bool = False
    fence: int | None = None
    decision: tuple[str, str] | None = None
    facts: Facts | None = None
    threshold_eta_s: float | None = None  # None: not known
    run: Run | None = None
    training: dict[str, Any] = field(default_factory=dict)
    curve: Curve = field(default_factory=Curve)
    current_version: int | None = None
    damage: str | None = None  # why the current version cannot be used
    num_failures: int = 0  # in a row
    rows_unaccounted: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    last_result: tuple[str, str] | None = None  # (run state, one line about it)
    last_failure: str | None = None
    step_error: str | None = None  # what the last step broke off with
    settings_error: str | None = None  # why what was changed of the settings is not in force
    finished: Run | None = None
    _expectation: Expectation = field(default_factory=Expectation)
    _task: tuple[str, Task] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def alive(self) -> None:
        """Give a sign of life."""
        self.last_tick = time.monotonic()
        record.record_alive()

    def database_away(self, error: str) -> None:
        """The database did not answer."""
        self.database_error = error.strip().splitlines()[0] if error.strip() else "no answer"
        record.record_database(up=False)

    def database_back(self) -> None:
        """The database answered."""
        self.database_error = None
        record.record_database(up=True)

    def step_failed(self, error: Exception) -> None:
        """A step broke off and is tried again."""
        self.step_error = describe_error(error)

    def step_worked(self) -> None:
        """A step came to its end, and with it whatever was wrong before."""
        self.step_error = None

    def leads(self, fence: int | None) -> bool:
        """Take whether this process leads its line, under which fence; return whether that is new."""
        new, self.leading, self.fence = fence != self.fence, fence is not None, fence
        return new

    def decided(self, verdict: str, reason: str, facts: Facts | None = None, *, missing: str = "") -> None:
        """Take a decision, what it rested on, and in words what is missing."""
        with self._lock:
            if (verdict, reason) != self.decision:
                said = f"{reason} ({missing})" if missing else reason
                log.info("%s: %s", verdict, said, extra={"event": "decided", "verdict": verdict, "reason": reason})
            self.decision, self.facts = (verdict, reason), facts or self.facts
        record.record_decision(verdict, reason)
        if facts is not None:
            needed = num_needed(facts)
            self.threshold_eta_s = self._expectation.expect(time.monotonic(), facts.num_fresh, needed)
            record.record_threshold_eta(self.threshold_eta_s)
            record.record_line(
                backlog_rows=facts.num_fresh,
                threshold_rows=needed,
                lease_held=self.leading,
                paused=facts.paused,
                failures_in_a_row=self.num_failures,
            )

    @property
    def misfit(self) -> str | None:
        """Why no run can fit the device, where that is what the line waits for."""
        if self.facts is None or self.decision != ("wait", "does_not_fit"):
            return None
        return self.facts.misfit

    def goes_on(self) -> None:
        """The open run waits no more, neither for the operator nor for its device."""
        with self._lock:
            if self.decision is not None and self.decision[0] == "wait":
                self.decision = None

    def follows(self, run: Run) -> None:
        """Follow the open run."""
        with self._lock:
            self.run = run
        record.record_run_state(run.state, number=run.number)

    def on_event(self, run: Run, event: Event) -> None:
        """Take a progress event of the child."""
        self.alive()
        event = self.speed.add_to(event, run.kind)
        record.record_event(event)
        kind = event.get("event")
        with self._lock:
            self.curve.take(run.uuid, event)
            if kind == "phase":
                self.training["phase"] = event.get("phase")
            elif kind == "step":
                self.training.update({name: event[name] for name in _STEP_FIELDS if name in event})
            elif kind == "plan":
                self.training["plan"] = {name: event[name] for name in _PLAN_FIELDS if name in event}
            elif kind == "eval":
                self.training["eval_loss"] = event.get("loss")
        if kind == "note":
            told = {"event": "child_note", "note": event.get("note"), "run": run.number}
            log.info("the child says: %s", event.get("message") or event.get("note"), extra=told)
        if kind == "step":
            figures = {key: event[key] for key in ("loss", "tokens_per_s", "eta_s") if event.get(key) is not None}
            self._show(run, int(event["step"]), int(event["total"]), figures)
        elif kind == "progress":
            self._show(run, int(event["done"]), int(event["total"]), {})

    def _show(self, run: Run, step: int, total: int, figures: dict[str, Any]) -> None:
        name = f"{'base model' if run.kind == 'base' else f'run {run.number}'}: {self.training.get('phase', 'train')}"
        if self._task is None or self._task[0] != name:
            self._end_task()
            self._task = (name, self.progress.task(name, total=total))
        self._task[1].update(step, **figures)

    def _end_task(self) -> None:
        if self._task is not None:
            self._task[1].done()
            self._task = None

    def child_ended(self) -> None:
        """Forget the live figures: the child is gone."""
        with self._lock:
            self.training = {}
        self._end_task()
        record.forget_child()

    def finished_run(self, run: Run, summary: str) -> None:
        """Take the end of a run."""
        with self._lock:
            self.run, self.training, self.finished = None, {}, run
            self.last_result = (run.state, summary)
            if run.reason not in ("probe_passed", CANCELLED):  # the one narrows down why the last run failed
                self.last_failure = summary if run.state == "failed" else None
        seconds = (datetime.now(UTC) - run.created_at).total_seconds()
        record.record_closed_run(run.state, seconds, reason=run.reason if run.state == "failed" else None)

    def serves(self, version: int | None, state: dict[str, Any], *, num_failures: int) -> None:
        """Take what the database says is current."""
        with self._lock:
            self.current_version, self.state, self.num_failures = version, state, num_failures

    def verified(self, version: int, damage: str | None, promoted_at_s: float | None) -> None:
        """Take whether the files of the current version are whole; `damage` says what is not."""
        self.damage = damage
        record.record_version(version, promoted_at_s=promoted_at_s, verified=damage is None)

    def audited(self, by_state: dict[str, int], rows_unaccounted: int) -> None:
        """Take the row accounting as it was just computed."""
        self.rows_unaccounted = rows_unaccounted
        record.record_audit(by_state, num_unaccounted=rows_unaccounted)

    def evaluated(self, rows: list[dict[str, Any]], gain: tuple[float, float, float] | None) -> None:
        """Take the figures of the last evaluation; `gain` is the incumbent's minus the candidate's: low, mean, high."""
        record.record_evaluations(rows)
        record.record_gain(gain)

    def show_curve(self) -> dict[str, Any] | None:
        """Return the loss curve of the open run."""
        with self._lock:
            return self.curve.to_json() if self.run is not None and self.run.uuid == self.curve.run else None

    def snapshot(self) -> dict[str, Any]:
        """Return the figures for /status."""
        with self._lock:
            return {
                "leading": self.leading,
                "decision": None
                if self.decision is None
                else dict(zip(("verdict", "reason"), self.decision, strict=True)),
                "backlog": None if self.facts is None else self.facts.as_inputs(),
                "needed_rows": None if self.facts is None else num_needed(self.facts),
                "threshold_eta_s": self.threshold_eta_s,
                "run": None
                if self.run is None
                else {
                    **{name: getattr(self.run, name) for name in ("number", "kind", "state")},
                    "created_at": self.run.created_at.isoformat(timespec="seconds"),
                },
                "training": dict(self.training),
                "current_version": self.current_version,
                "last_result": None
                if self.last_result is None
                else dict(zip(("state", "summary"), self.last_result, strict=True)),
            }
