"""`codelupe daemon`, `codelupe train` and `codelupe complete`."""

import json
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.api.tokens import check_exposure
from daemon.config import Settings, TrainingSettings
from daemon.device import detect_device
from daemon.files import write_json
from daemon.full import base
from daemon.job import Event
from daemon.paths import LinePaths
from daemon.promotion import find_actor
from daemon.range_test import range_test
from daemon.reports import find_version, open_line_of
from daemon.supervise import Order, read_failure, run_child
from monitoring.logs import setup_logging
from monitoring.progress import Progress
from monitoring.stopping import stop_on_signals, until_stopped
from schema.commands import connect_engine, open_engine
from schema.decisions import record_decision
from schema.jobs import add_job, cancel_all
from schema.lines import set_paused
from schema.runs import fetch_open_run
from schema.stalls import cut_when_stopped
from schema.suspects import PROBE, count_quarantined, release_quarantined
from sourcecode.languages import detect_language

if TYPE_CHECKING:
    from daemon.service import Company


@click.group()
def daemon() -> None:
    """The long-running daemon, and single ticks of it."""


def run_service(settings: Settings, *, once: bool, log_name: str, company: "Company | None" = None) -> int:
    """Run the daemon, and its company, until it is asked to stop, also while it starts; return the exit status."""
    from daemon.loop import ExitCode
    from daemon.service import run_daemon

    check_exposure(settings.home, settings.monitoring)
    stop = threading.Event()
    setup_logging(level=settings.monitoring.log_level, file=settings.home / "logs" / log_name)
    with (
        stop_on_signals(stop),
        Progress(every_s=settings.monitoring.progress_every_s) as progress,
        ExitStack() as stack,
    ):
        # The embedded server takes its time after a crash.
        engine = until_stopped(stop, lambda: stack.enter_context(connect_engine(settings)))
        if engine is None:
            return ExitCode.FAILED if once else ExitCode.OK
        return run_daemon(settings, engine, stop=stop, progress=progress, once=once, company=company)


@daemon.command()
@click.option("--once", is_flag=True, help="Stop after the first finished round (exit codes as `codelupe up --once`).")
@click.pass_obj
def run(settings: Settings, once: bool) -> None:
    """Run the daemon: count, decide, train, evaluate, publish, and start again."""
    sys.exit(run_service(settings, once=once, log_name="daemon.log"))


@daemon.command()
@click.pass_obj
def tick(settings: Settings) -> None:
    """Do one tick and print the decision as JSON; a run that is open is advanced by one state."""
    from daemon.service import make_context, open_own_line
    from daemon.tick import tick as do_tick
    from daemon.trace import new_tick

    stop = threading.Event()
    setup_logging(level=settings.monitoring.log_level, file=settings.home / "logs" / "daemon.log")
    with (
        Progress(every_s=settings.monitoring.progress_every_s) as progress,
        open_engine(settings) as engine,
        stop_on_signals(stop),
        cut_when_stopped(engine, stop),
    ):
        ctx = make_context(settings, engine, stop, progress)
        open_own_line(ctx)
        with ctx.leadership.kept_alive():
            ctx.leadership.outwait((ctx.line_lease_name, ctx.device.lease), stop)
            with new_tick(settings.daemon.line) as number:
                worked = do_tick(ctx)
        click.echo(json.dumps({"tick": number, "worked": worked, **ctx.live.snapshot()}, indent=2, default=str))


@click.group()
def train() -> None:
    """Manual control: train now, pause, resume, cancel; a base of your own, a learning-rate range test."""


def _set_paused(settings: Settings, paused: bool, said: str) -> None:
    with open_line_of(settings) as (conn, line):
        set_paused(conn, line.id, paused)
        conn.commit()
    click.echo(said)


@train.command()
@click.pass_obj
def now(settings: Settings) -> None:
    """Train at the next tick, however few new rows there are."""
    with open_line_of(settings) as (conn, line):
        job = add_job(conn, line.id, forced=True, asked_by=find_actor())
        conn.commit()
    click.echo(f"asked for: the next tick trains on what is pending (job {job.id})")


@train.command()
@click.pass_obj
def pause(settings: Settings) -> None:
    """Stop after a checkpoint and start no run until `resume`."""
    _set_paused(settings, True, "paused: a run that is open keeps its checkpoint")


@train.command()
@click.pass_obj
def resume(settings: Settings) -> None:
    """Go on after `pause`."""
    _set_paused(settings, False, "resumed")


@train.command()
@click.pass_obj
def cancel(settings: Settings) -> None:
    """End the open run and give its rows back; and whatever asks for the next one."""
    with open_line_of(settings) as (conn, line):
        run, num_jobs = cancel_all(conn, line.id)
        conn.commit()
    if run is None and not num_jobs:
        raise click.ClickException("there is nothing to cancel: no run is open, and none was asked for")
    if run is not None:
        click.echo(f"asked for: run {run.number} ends and its rows are released")
    if num_jobs:
        click.echo(f"{num_jobs} jobs that waited for a run are cancelled")


@train.command()
@click.option("--reason", help="Only the rows that were quarantined for this reason; without it all of them.")
@click.pass_obj
def release(settings: Settings, reason: str | None) -> None:
    """Give quarantined rows back: the next run may train on them again."""
    with open_line_of(settings) as (conn, line):
        run = fetch_open_run(conn, line.id)
        if run is not None and PROBE in run.figures:
            raise click.ClickException(
                f"run {run.number} is trying suspects: wait for its end, or `codelupe train cancel` it first"
            )
        there = count_quarantined(conn, line.id)
        if not there or (reason is not None and reason not in there):
            found = ", ".join(f"{name} ({num})" for name, num in sorted(there.items())) or "none"
            wanted = f" for {reason!r}" if reason else ""
            raise click.ClickException(f"no row is quarantined{wanted}; there are: {found}")
        num = release_quarantined(conn, line.id, reason)
        inputs = {"rows": num, "quarantined_for": reason or "any reason"}
        record_decision(conn, line.id, verdict="released", reason="requested", inputs=inputs)
        conn.commit()
    click.echo(f"{num} quarantined rows are pending again")


train.add_command(base)
train.add_command(range_test)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--version", default="current", show_default=True, help="Version to use, or `base`.")
@click.option("--max-tokens", default=64, show_default=True, help="Most tokens to write.")
@click.option(
    "--hole", default="<HOLE>", show_default=True, help="Marks the place to fill; without it FILE is continued."
)
@click.pass_obj
def complete(settings: Settings, file: Path, version: str, max_tokens: int, hole: str) -> None:
    """Continue FILE (`-`: standard input) with a version, or fill the hole in it."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file}: not UTF-8 text ({error})") from error
    prefix, found, suffix = text.partition(hole)
    with open_line_of(settings) as (conn, line):
        number = None if version == "base" else find_version(conn, line, version)["number"]
    revision = settings.daemon.base_revision or line.base_revision  # the commit that the adapters were trained on
    asked: dict[str, object] = {"base_revision": None if settings.daemon.makes_base else revision}
    asked |= {"prefix": prefix, "suffix": suffix if found else None, "max_tokens": max_tokens}
    language = detect_language(file.name, text)
    if language is not None:
        asked["language"] = language
    click.echo(_ask(settings, number, asked))


def _ask(settings: Settings, version: int | None, asked: dict[str, object]) -> str:
    """Let a child write the completion. Raises click.ClickException with the child's own words."""
    daemon, paths = settings.daemon, LinePaths(settings.home, settings.daemon.line)
    question = {
        **asked,
        "settings": {name: getattr(daemon, name) for name in TrainingSettings.model_fields},
        "device": detect_device(settings.profile).kind,
        "base": str(paths.base) if daemon.makes_base else daemon.base_model,
        "base_cache": str(paths.base_cache),
        "adapter": None if version is None else str(paths.version(version)),
    }
    with tempfile.TemporaryDirectory(prefix="codelupe-complete-") as name:
        folder = Path(name)
        write_json(folder / "question.json", question)
        if run_child("complete", folder, Unheard(), stop_grace_s=daemon.stop_grace_s) != "done":
            raise click.ClickException(f"the child could not complete it: {read_failure(folder).message}")
        return str(json.loads((folder / "answer.json").read_bytes())["text"])


class Unheard:
    """A child whose caller only waits for its answer."""

    def obey(self) -> Order:
        """Let it go on."""
        return "go_on"

    def on_event(self, event: Event) -> None:
        """Ignore the event."""
