"""The long-running daemon: a clock that ticks, a heartbeat that keeps the leases, and the HTTP server."""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from importlib.metadata import version
from typing import TypeVar

from sqlalchemy import Connection, Engine

from daemon.clock import JumpWatch, start_clock
from daemon.config import Settings
from daemon.context import Context
from daemon.device import detect_device
from daemon.leadership import Leadership
from daemon.live import Live
from daemon.paths import LinePaths
from daemon.reconcile import verify_current
from daemon.status import Reporter
from daemon.tick import tick
from daemon.turns import LOOK_S
from monitoring import record
from monitoring.metrics import REGISTRY
from monitoring.progress import Progress
from monitoring.stopping import until_stopped
from schema.audit import audit
from schema.commands import prepare_tables
from schema.database import describe_outage, is_outage, outlast
from schema.lines import BaseChanged, fetch_line, open_line
from schema.repositories import is_drained
from schema.runs import Run
from schema.stalls import cut_when_stopped

log = logging.getLogger(__name__)
_HOUR_S = 3600
_JUMP_LOOK_S = 5.0
_MOST_ERRORS = 3
_FINAL_WAITS = ("too_few_rows", "too_few_held_out")
T = TypeVar("T")


class ExitCode(IntEnum):
    """How `up --once` and `daemon run` end; 2 is click's own, for usage and configuration, 4 the front door's."""

    OK = 0
    FAILED = 1
    NOT_PROMOTED = 3


@dataclass(frozen=True, slots=True)
class Company:
    """What `up` does around the daemon."""

    migrates: bool = False
    """Whether another server's database is upgraded too."""
    queue: Callable[[Connection], None] = lambda _conn: None
    """Done once the database is there; again from its beginning when that was cut off."""
    beside: Callable[[Engine, Progress], AbstractContextManager[None]] = lambda _engine, _progress: nullcontext()
    """Runs beside the daemon, from the end of its start until it has stopped."""


def make_context(settings: Settings, engine: Engine, stop: threading.Event, progress: Progress) -> Context:
    """Put the daemon's parts together; the database need not be there."""
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


def open_own_line(ctx: Context) -> None:
    """Open the line that the settings name. Raises BaseChanged when it stands for another base."""
    asked = ctx.settings.base_revision
    with ctx.engine.begin() as conn:
        line = open_line(conn, name=ctx.settings.line, base_model=ctx.settings.base_model)
    if asked is not None and line.base_revision is not None and asked != line.base_revision:
        raise BaseChanged(
            f"line {line.name!r} trains revision {line.base_revision} of its base, not {asked}: choose another name "
            "for the new line (CODELUPE_LINE)"
        )


def run_daemon(
    settings: Settings,
    engine: Engine,
    *,
    stop: threading.Event,
    progress: Progress,
    once: bool = False,
    company: Company | None = None,
) -> ExitCode:
    """Wait for the database, then tick until `stop` is set, or with `once` until the first finished round."""
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
    company = company or Company()
    with closing(server), cut_when_stopped(engine, stop):
        if until_stopped(stop, lambda: _start(ctx, settings, company)):
            with company.beside(engine, progress):
                _run_clock(ctx, loop)
    return loop.exit_code


def _start(ctx: Context, settings: Settings, company: Company) -> bool:
    """Make the database ready for the first tick, however long it is away; return whether that came before a stop."""

    def prepare() -> None:
        prepare_tables(settings, ctx.engine, migrate=company.migrates)
        open_own_line(ctx)
        with ctx.engine.begin() as conn:
            company.queue(conn)

    is_ready = outlast(prepare, stop=ctx.stop, away=ctx.live.database_away)
    if is_ready:
        ctx.live.database_back()
        ctx.live.alive()
    return is_ready


def _run_clock(ctx: Context, loop: "Loop") -> None:
    settings = ctx.settings
    scheduler = start_clock(
        {
            "heartbeat": (loop.heartbeat, settings.line_lease_s / 4),
            "tick": (loop.run, settings.check_interval_s),
            "audit": (loop.audit, _HOUR_S),
        }
    )
    watch = JumpWatch(scheduler)
    try:
        while not ctx.stop.wait(_JUMP_LOOK_S):
            watch.look()
    finally:
        # Waits for the tick that runs: its child is stopping by the same event.
        scheduler.shutdown(wait=True)
        loop.leave()


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
        """Tick as long as there is work, and often while another line has the device: our turn may come any moment."""
        while not self.ctx.stop.is_set() and (self.step() or self._waits_for_device()):
            pass

    def _waits_for_device(self) -> bool:
        """Wait a little if it is the device that the line waits for; return whether it was."""
        if self.ctx.live.decision != ("wait", "device_busy"):
            return False
        self.ctx.stop.wait(LOOK_S)
        return True

    def step(self) -> bool:
        """Tick once; return whether to tick again at once."""
        started = time.monotonic()
        worked = self._guard(lambda: tick(self.ctx))
        outcome = "failed" if worked is None else "worked" if worked else "idle" if self.ctx.live.leading else "busy"
        if worked is not None:
            self.ctx.live.database_back()
            self.ctx.live.step_worked()
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
            words = describe_outage(error)
            self.ctx.live.database_away(words)
            log.warning("the database is away; waiting for it: %s", words, extra={"event": "database_away"})
            return
        self._num_errors += 1
        self.ctx.live.step_failed(error)
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
