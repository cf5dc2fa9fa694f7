"""The long-running daemon: a clock that ticks, a heartbeat that keeps the leases, and the HTTP server."""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from importlib.metadata import version
from typing import TypeVar

from apscheduler.events import EVENT_JOB_MAX_INSTANCES
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import Engine

from daemon.config import Settings
from daemon.context import Context
from daemon.device import detect_device
from daemon.leadership import Leadership
from daemon.live import Live
from daemon.paths import LinePaths
from daemon.reconcile import verify_current
from daemon.status import Reporter
from daemon.tick import tick
from monitoring import record
from monitoring.metrics import REGISTRY
from monitoring.progress import Progress
from schema.audit import audit
from schema.database import is_outage
from schema.lines import BaseChanged, fetch_line, open_line
from schema.repositories import is_drained
from schema.runs import Run

log = logging.getLogger(__name__)
_HOUR_S = 3600
_MOST_ERRORS = 3
_FINAL_WAITS = ("too_few_rows", "too_few_held_out")
T = TypeVar("T")


class ExitCode(IntEnum):
    """How `up --once` and `daemon run` end; 2 is click's own, for usage and configuration, 4 the front door's."""

    OK = 0
    FAILED = 1
    NOT_PROMOTED = 3


def make_context(settings: Settings, engine: Engine, stop: threading.Event, progress: Progress) -> Context:
    """Open the line and put the daemon's parts together."""
    with engine.begin() as conn:
        line = open_line(conn, name=settings.daemon.line, base_model=settings.daemon.base_model)
    asked = settings.daemon.base_revision
    if asked is not None and line.base_revision is not None and asked != line.base_revision:
        raise BaseChanged(
            f"line {line.name!r} trains revision {line.base_revision} of its base, not {asked}: choose another name "
            "for the new line (CODELUPE_LINE)"
        )
    holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    return Context(
        engine=engine,
        settings=settings.daemon,
        profile=settings.profile,
        paths=LinePaths(settings.home, settings.daemon.line),
        device=detect_device(settings.profile),
        leadership=Leadership(engine, holder, settings.daemon.line_lease_s),
        stop=stop,
        live=Live(progress),
    )


def run_daemon(
    settings: Settings, engine: Engine, *, stop: threading.Event, progress: Progress, once: bool = False
) -> ExitCode:
    """Tick until `stop` is set, or with `once` until the first finished round."""
    from monitoring.server import create_app, serve  # Flask: a single tick does without

    ctx = make_context(settings, engine, stop, progress)
    record.record_start(version=version("codelupe"), profile=settings.profile, line=settings.daemon.line)
    record.record_alive(check_interval_s=settings.daemon.check_interval_s)
    reporter = Reporter(ctx, settings)
    app = create_app(health=reporter.health, ready=reporter.ready, status=reporter.status, registry=REGISTRY)
    server = serve(app, settings.monitoring.host, settings.monitoring.daemon_port)
    log.info("the daemon answers at %s", server.url, extra={"event": "daemon_started", "url": server.url})
    # Stopped before its round is over, `--once` has not done what it was asked to.
    loop = Loop(ctx, once=once, exit_code=ExitCode.FAILED if once else ExitCode.OK)
    scheduler = _schedule(ctx, loop)
    try:
        stop.wait()
    finally:
        # Waits for the tick that runs: its child is stopping by the same event.
        scheduler.shutdown(wait=True)
        server.close()
        loop.leave()
    return loop.exit_code


@dataclass(slots=True)
class Loop:
    """The edge of the tick: errors are logged, counted and retried at the next interval, never at once."""

    ctx: Context
    once: bool
    exit_code: ExitCode
    _num_errors: int = 0
    _drained_before: bool = False
    _audited: Run | None = None

    def run(self) -> None:
        """Tick as long as there is work."""
        while not self.ctx.stop.is_set() and self.step():
            pass

    def step(self) -> bool:
        """Tick once; return whether to tick again at once."""
        started = time.monotonic()
        worked = self._guard(lambda: tick(self.ctx))
        outcome = "failed" if worked is None else "worked" if worked else "idle" if self.ctx.live.leading else "busy"
        if worked is not None:
            self.ctx.live.database_back()
            self._num_errors = 0
        record.record_tick(outcome, time.monotonic() - started)
        self.ctx.live.alive()
        if self.ctx.live.finished is not self._audited:
            self._audited = self.ctx.live.finished
            self.audit()
        self._guard(self._end_once)
        return bool(worked)

    def heartbeat(self) -> None:
        """Renew the leases; an outage is waited out, the database's clock decides whether we come back in time."""
        self._guard(self._renew)

    def _renew(self) -> None:
        self.ctx.leadership.renew()
        self.ctx.live.database_back()

    def audit(self) -> None:
        """Recompute the row accounting into the metrics (I1), and look whether the current version is still whole."""
        self._guard(self._audit)

    def leave(self) -> None:
        """Give the leases back, so that a successor need not wait for them."""
        self._guard(self.ctx.leadership.give_back)

    def _audit(self) -> None:
        with self.ctx.engine.connect() as conn:
            report = audit(conn)
            line = fetch_line(conn, self.ctx.settings.line)
        self.ctx.live.audited(report.by_state, report.rows_unaccounted)
        if line is not None:
            verify_current(self.ctx, line)

    def _guard(self, work: Callable[[], T]) -> T | None:
        """Do the work; an error is logged and counted, and answered with None."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 -- the loop's edge
            self._take_error(error)
            return None

    def _take_error(self, error: Exception) -> None:
        if is_outage(error):
            self.ctx.live.database_away(str(getattr(error, "orig", error)))
            log.warning("the database is away; waiting for it", extra={"event": "database_away", "error": str(error)})
            return
        self._num_errors += 1
        record.record_loop_error("tick")
        log.error("a step failed and is tried again", exc_info=error, extra={"event": "tick_failed"})

    def _end_once(self) -> None:
        """With `once`, stop when the first round is over or nothing can come any more."""
        if not self.once:
            return
        live = self.ctx.live
        if live.finished is not None and (live.finished.kind == "adapter" or live.finished.state == "failed"):
            ended = {"promoted": ExitCode.OK, "failed": ExitCode.FAILED}
            self._stop(ended.get(live.finished.state, ExitCode.NOT_PROMOTED))
        elif self._num_errors >= _MOST_ERRORS:
            self._stop(ExitCode.FAILED)
        elif live.decision is not None and live.decision[0] == "wait" and live.decision[1] in _FINAL_WAITS:
            self._end_idle(live.decision[1])

    def _end_idle(self, reason: str) -> None:
        with self.ctx.engine.connect() as conn:
            drained = is_drained(conn)
        # The rows were counted before the queue was seen empty: only a second look of the same kind is final.
        if drained and self._drained_before:
            log.info("nothing new to train on: %s", reason, extra={"event": "nothing_new", "reason": reason})
            self._stop(ExitCode.OK if reason == "too_few_rows" else ExitCode.FAILED)
        self._drained_before = drained

    def _stop(self, code: ExitCode) -> None:
        self.exit_code = code
        self.ctx.stop.set()


def _schedule(ctx: Context, loop: Loop) -> BackgroundScheduler:
    """Start the clock: one tick at a time, missed ones skipped and counted, never replayed."""
    scheduler = BackgroundScheduler(timezone=UTC)
    once_at_a_time = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
    now = datetime.now(UTC)
    settings = ctx.settings
    jobs = (
        (loop.heartbeat, "heartbeat", settings.line_lease_s / 4),
        (loop.run, "tick", settings.check_interval_s),
        (loop.audit, "audit", _HOUR_S),
    )
    for job, name, seconds in jobs:
        scheduler.add_job(job, "interval", seconds=seconds, id=name, next_run_time=now, **once_at_a_time)
    scheduler.add_listener(lambda event: _count_skipped(event.job_id), EVENT_JOB_MAX_INSTANCES)
    scheduler.start()
    return scheduler


def _count_skipped(job: str) -> None:
    if job == "tick":
        record.record_skipped_tick()
