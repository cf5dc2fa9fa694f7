"""`codelupe daemon`, `codelupe train` and `codelupe complete`."""

import json
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from sqlalchemy import Engine

from daemon.config import Settings, TrainingSettings
from daemon.device import detect_device
from daemon.files import write_json
from daemon.job import Event
from daemon.paths import LinePaths
from daemon.reports import find_version, open_line_of
from daemon.supervise import Order, read_failure, run_child
from monitoring.logs import setup_logging
from monitoring.progress import Progress
from schema.commands import open_engine
from schema.lines import request, set_paused
from sourcecode.languages import detect_language

# A service waits so long for its database at the start; then it ends and whoever keeps it starts it again.
_WAIT_S = 60.0


@click.group()
def daemon() -> None:
    """The long-running daemon, and single ticks of it."""


def stop_on_signals(stop: threading.Event) -> None:
    """Set `stop` on SIGTERM and SIGINT; the handlers do nothing else."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


@dataclass(frozen=True, slots=True)
class Running:
    """What a foreground process has open while it runs."""

    settings: Settings
    engine: Engine
    progress: Progress
    stop: threading.Event
    once: bool

    def daemon(self) -> int:
        """Run the daemon until it is asked to stop; return the exit status."""
        from daemon.service import run_daemon

        return run_daemon(self.settings, self.engine, stop=self.stop, progress=self.progress, once=self.once)


@contextmanager
def run_in_foreground(settings: Settings, *, once: bool, log_name: str, migrate: bool = False) -> Iterator[Running]:
    """Set up signals, log, progress and database; what is opened here is closed last."""
    stop = threading.Event()
    stop_on_signals(stop)
    setup_logging(level=settings.monitoring.log_level, file=settings.home / "logs" / log_name)
    with (
        Progress(every_s=settings.monitoring.progress_every_s) as progress,
        open_engine(settings, migrate=migrate, wait_s=_WAIT_S) as engine,
    ):
        yield Running(settings, engine, progress, stop, once)


@daemon.command()
@click.option("--once", is_flag=True, help="Stop after the first finished round (exit codes as `codelupe up --once`).")
@click.pass_obj
def run(settings: Settings, once: bool) -> None:
    """Run the daemon: count, decide, train, evaluate, publish, and start again."""
    with run_in_foreground(settings, once=once, log_name="daemon.log") as running:
        code = running.daemon()
    sys.exit(code)


@daemon.command()
@click.pass_obj
def tick(settings: Settings) -> None:
    """Do one tick and print the decision as JSON; a run that is open is advanced by one state."""
    from daemon.service import make_context
    from daemon.tick import tick as do_tick

    with run_in_foreground(settings, once=True, log_name="daemon.log") as running:
        ctx = make_context(settings, running.engine, running.stop, running.progress)
        with ctx.leadership.kept_alive():
            worked = do_tick(ctx)
        click.echo(json.dumps({"worked": worked, **ctx.live.snapshot()}, indent=2, default=str))


@click.group()
def train() -> None:
    """Manual control: train now, pause, resume, cancel."""


def _control(settings: Settings, said: str, *, what: str | None = None, paused: bool | None = None) -> None:
    with open_line_of(settings) as (conn, line):
        if paused is None:
            request(conn, line.id, what)
        else:
            set_paused(conn, line.id, paused)
        conn.commit()
    click.echo(said)


@train.command()
@click.pass_obj
def now(settings: Settings) -> None:
    """Train at the next tick, however few new rows there are."""
    _control(settings, "asked for: the next tick trains on what is pending", what="train")


@train.command()
@click.pass_obj
def pause(settings: Settings) -> None:
    """Stop after a checkpoint and start no run until `resume`."""
    _control(settings, "paused: a run that is open keeps its checkpoint", paused=True)


@train.command()
@click.pass_obj
def resume(settings: Settings) -> None:
    """Go on after `pause`."""
    _control(settings, "resumed", paused=False)


@train.command()
@click.pass_obj
def cancel(settings: Settings) -> None:
    """End the open run and give its rows back."""
    _control(settings, "asked for: the open run ends and its rows are released", what="cancel")


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
    asked = {"prefix": prefix, "suffix": suffix if found else None, "max_tokens": max_tokens}
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
        "base_revision": daemon.base_revision,
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
