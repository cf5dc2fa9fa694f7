"""The long-running daemon: a clock that ticks, a heartbeat that keeps the leases, and the HTTP server."""

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from importlib.metadata import version

from sqlalchemy import Connection, Engine

from daemon.api.tokens import TokenFile, tokens_file
from daemon.board import Board
from daemon.clock import JumpWatch, start_clock
from daemon.config import Settings
from daemon.context import Context
from daemon.device import detect_device
from daemon.leadership import Leadership
from daemon.live import Live
from daemon.loop import ExitCode, Loop
from daemon.paths import LinePaths
from daemon.shapes import check_family
from daemon.speed import Speed
from daemon.status import Reporter
from monitoring import record
from monitoring.metrics import REGISTRY
from monitoring.progress import Progress
from monitoring.sensors import measure_machine
from monitoring.stopping import until_stopped
from schema.commands import prepare_tables
from schema.database import outlast
from schema.lines import BaseChanged, open_line
from schema.stalls import cut_when_stopped

log = logging.getLogger(__name__)
_HOUR_S = 3600
_MEASURE_S = 15.0
_JUMP_LOOK_S = 5.0


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
    device = detect_device(settings.profile)
    holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    return Context(
        engine=engine,
        settings=settings.daemon,
        profile=settings.profile,
        paths=LinePaths(settings.home, settings.daemon.line),
        device=device,
        leadership=Leadership(engine, holder, settings.daemon.line_lease_s),
        stop=stop,
        live=Live(progress, Speed.of(settings.daemon, device)),
    )


def open_own_line(ctx: Context) -> None:
    """Open the line that the settings name.

    Raises:
        BaseChanged: it stands for another base.
        UnfitBaseError: no adapter can be trained on that base; the line is not made.
    """
    check_family(ctx.settings)
    asked = ctx.settings.base_revision
    with ctx.engine.begin() as conn:
        line = open_line(
            conn,
            name=ctx.settings.line,
            base_model=ctx.settings.base_model,
            max_owner_rows=ctx.settings.max_owner_rows,
        )
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
    from daemon.api.app import open_api  # Flask: a single tick does without
    from monitoring.server import create_app, serve

    ctx = make_context(settings, engine, stop, progress)
    record.record_start(version=version("codelupe"), profile=settings.profile, line=settings.daemon.line)
    record.record_alive()
    record.record_changed_settings(0, check_interval_s=settings.daemon.check_interval_s)
    # Stopped before its round is over, `--once` has not done what it was asked to.
    loop = Loop(ctx, once=once, exit_code=ExitCode.FAILED if once else ExitCode.OK)
    tokens = TokenFile(tokens_file(settings.home, settings.monitoring))
    company = company or Company()
    with ExitStack() as stack:
        api = stack.enter_context(open_api(engine, settings.daemon, ctx.paths, tokens, loop.alarm.ring, stop))
        reporter = Reporter(ctx, settings, Board(api.engine, settings.daemon.line).show)
        app = create_app(
            health=reporter.health,
            ready=reporter.ready,
            status=reporter.status,
            registry=REGISTRY,
            install=api.install,
        )
        server = stack.enter_context(closing(serve(app, settings.monitoring.host, settings.monitoring.daemon_port)))
        log.info("the daemon answers at %s", server.url, extra={"event": "daemon_started", "url": server.url})
        stack.enter_context(measure_machine(settings.home))
        stack.enter_context(cut_when_stopped(engine, stop))
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


def _run_clock(ctx: Context, loop: Loop) -> None:
    settings = ctx.settings
    scheduler = start_clock(
        {
            "heartbeat": (loop.heartbeat, settings.line_lease_s / 4),
            "tick": (loop.run, settings.check_interval_s),
            "audit": (loop.audit, _HOUR_S),
            "tidy": (loop.tidy, _HOUR_S),
            "measure": (loop.measure, _MEASURE_S),
        }
    )
    loop.alarm.scheduler = scheduler
    watch = JumpWatch(scheduler)
    try:
        while not ctx.stop.wait(_JUMP_LOOK_S):
            watch.look()
    finally:
        loop.alarm.scheduler = None
        # Waits for the tick that runs: its child is stopping by the same event.
        scheduler.shutdown(wait=True)
        loop.leave()
