"""The daemon's clock: what is done at which interval, and what happens when the machine's own clock jumps."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_MAX_INSTANCES
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from monitoring import record

log = logging.getLogger(__name__)
_LEAST_JUMP_S = 2.0


class Every(BaseTrigger):  # type: ignore[misc]
    """An interval from now on: after a jump ahead nothing is made up for, not even counted."""

    def __init__(self, seconds: float) -> None:
        self._interval = timedelta(seconds=seconds)

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        """Return the next time, whatever the last one was."""
        return now + self._interval


def start_clock(jobs: Mapping[str, tuple[Callable[[], None], float]]) -> BackgroundScheduler:
    """Start the clock on jobs (what, and every how many seconds): now, one of a kind at a time, none replayed.

    A tick that finds the one before at work is skipped and counted.
    """
    scheduler = BackgroundScheduler(timezone=UTC)
    once_at_a_time = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
    now = datetime.now(UTC)
    for name, (job, seconds) in jobs.items():
        scheduler.add_job(job, Every(seconds), id=name, next_run_time=now, **once_at_a_time)
    scheduler.add_listener(lambda event: _count_skipped(event.job_id), EVENT_JOB_MAX_INSTANCES)
    scheduler.start()
    return scheduler


@dataclass(slots=True)
class JumpWatch:
    """Compares the machine's clock with one that nobody sets: the scheduler waits by the first."""

    scheduler: BackgroundScheduler
    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    _offset: float = field(init=False)

    def __post_init__(self) -> None:
        self._offset = self.wall() - self.steady()

    def look(self) -> None:
        """Start every job anew when the clock has jumped since the last look: set back, it would wait for hours."""
        offset = self.wall() - self.steady()
        jump_s, self._offset = offset - self._offset, offset
        if abs(jump_s) < _LEAST_JUMP_S:
            return
        log.warning("the clock jumped by %+.1f s", jump_s, extra={"event": "clock_jumped", "seconds": round(jump_s, 1)})
        record.record_clock_jump()
        for job in self.scheduler.get_jobs():
            job.modify(next_run_time=datetime.now(UTC))


@dataclass(slots=True)
class Alarm:
    """Brings the next tick forward: somebody has asked for something."""

    rung: threading.Event = field(default_factory=threading.Event)
    scheduler: BackgroundScheduler | None = None

    def ring(self) -> None:
        """Let a tick come at once; after the one that runs, where one does."""
        self.rung.set()
        if self.scheduler is not None:
            self.scheduler.modify_job("tick", next_run_time=datetime.now(UTC))

    def retime(self, seconds: float) -> None:
        """Let ticks come at another interval, from now on."""
        if self.scheduler is not None:
            self.scheduler.reschedule_job("tick", trigger=Every(seconds))


def _count_skipped(job: str) -> None:
    if job == "tick":
        record.record_skipped_tick()
