"""`codelupe ingest`: queue sources, work through them, see the queue, explain a judgement."""

import contextlib
import json
import signal
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import sqlalchemy as sa

from ingest.config import Settings
from ingest.judge import judge_file
from ingest.sources import Source, SourceError, normalise_source, standard_library
from ingest.worker import Alive
from ingest.worker import work as run_worker
from monitoring.health import Facts, assess, ready
from monitoring.progress import Progress
from monitoring.server import create_app, serve
from schema.commands import open_engine
from schema.repositories import add_source, fetch_queue_counts, fetch_repositories

# Longer than a statement may take, and than it takes to notice that the database's machine has vanished.
_MAX_SILENCE_S = 90.0
_MAX_STATUS_AGE_S = 2.0
_NUM_SHOWN = 20
_COMPONENT_WIDTH = 15


@click.group()
def ingest() -> None:
    """Fill the tables with source code."""


@ingest.command()
@click.argument("sources", nargs=-1)
@click.option("--licence", help="SPDX expression that these sources are under, for example MIT.")
@click.option("--stdlib", is_flag=True, help="Add the running Python's standard library.")
@click.option("--priority", type=int, default=0, show_default=True, help="Higher ones are handled first.")
@click.pass_obj
def add(settings: Settings, sources: tuple[str, ...], licence: str | None, stdlib: bool, priority: int) -> None:
    """Queue SOURCES: local folders, local git repositories, https:// or http:// git URLs.

    A source that is there already is visited again, and adds what has changed.
    """
    found = _normalise(sources, stdlib=stdlib)
    with open_engine(settings) as engine, engine.begin() as conn:
        for source in found:
            is_new = queue_source(conn, source, licence=licence, priority=priority)
            click.echo(f"{'added' if is_new else 'queued again'}: {source.kind} {source.source}", err=True)


def queue_source(conn: sa.Connection, source: Source, *, licence: str | None = None, priority: int = 0) -> bool:
    """Queue one source; return whether it is new. `licence` goes before the one that is known of it."""
    _, is_new = add_source(
        conn,
        source=source.source,
        kind=source.kind,
        host=source.host,
        owner=source.owner,
        name=source.name,
        licence=licence or source.licence,
        priority=priority,
    )
    return is_new


@ingest.command()
@click.option("--drain", is_flag=True, help="End when nothing is queued any more.")
@click.option("--no-server", is_flag=True, help="Serve no metrics.")
@click.pass_obj
def work(settings: Settings, drain: bool, no_server: bool) -> None:
    """Handle queued sources until stopped."""
    stop = threading.Event()
    with (
        open_engine(settings, application_name="codelupe ingest") as engine,
        Progress(every_s=settings.monitoring.progress_every_s) as progress,
        _stop_on_signals(stop),
        serve_ingest(settings, engine, enabled=not no_server) as alive,
    ):
        run_worker(engine, settings.ingest, home=settings.home, stop=stop, once=drain, progress=progress, alive=alive)


@ingest.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--limit", default=_NUM_SHOWN, show_default=True, help="Show this many sources at most.")
@click.pass_obj
def status(settings: Settings, as_json: bool, limit: int) -> None:
    """Show the queue, the sources and why files were refused."""
    with open_engine(settings) as engine, engine.begin() as conn:
        report = fetch_status(conn, limit=limit)
    click.echo(json.dumps(report, default=str) if as_json else "\n".join(_describe_status(report)))


def fetch_status(conn: sa.Connection, *, limit: int = _NUM_SHOWN) -> dict[str, Any]:
    """Return the queue's counts by state, the newest sources, and the reasons for refusal summed over them."""
    rows = fetch_repositories(conn, limit=limit)
    refusals: Counter[str] = Counter()
    for row in rows:
        refusals.update(row["refusals"])
    shown = ("source", "kind", "state", "reason", "file_count", "code_lines", "quality_score", "licence", "refusals")
    return {
        "queue": fetch_queue_counts(conn),
        "refusals": dict(refusals.most_common()),
        "sources": [{key: row[key] for key in (*shown, "unit_level", "attempts", "visited_at")} for row in rows],
    }


@ingest.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--path", help="The file's path in its repository, for the rules about folders.  [default: its name]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def explain(settings: Settings, file: Path, path: str | None, as_json: bool) -> None:
    """Say how FILE would be judged, and why: the same code as the worker's."""
    is_executable = bool(file.stat().st_mode & stat.S_IXUSR)
    judgement = judge_file(path or file.name, file.read_bytes(), settings.ingest.limits, is_executable=is_executable)
    report = judgement.to_json()
    click.echo(json.dumps(report) if as_json else "\n".join(_describe_judgement(report)))


class _Signs:
    """What the worker has shown of itself and of the database, for who asks over HTTP: no statement for an answer."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._last = time.monotonic()
        self._is_up = True
        self._lock = threading.Lock()
        self._shown: dict[str, Any] = {}
        self._shown_at = -_MAX_STATUS_AGE_S

    def alive(self, *, database_up: bool | None = None) -> None:
        """Take a sign of life, and how the last statement went."""
        self._last = time.monotonic()
        if database_up is not None:
            self._is_up = database_up

    def facts(self) -> Facts:
        """Return what health is judged by."""
        silent_s = time.monotonic() - self._last
        return Facts(database_up=self._is_up, silent_s=silent_s, max_silent_s=_MAX_SILENCE_S, trains=False)

    def show_status(self) -> dict[str, Any]:
        """Return the queue's figures: those of a moment ago, and the last ones while the database is away."""
        with self._lock:
            if self._is_up and time.monotonic() - self._shown_at >= _MAX_STATUS_AGE_S:
                with contextlib.suppress(sa.exc.DBAPIError), self._engine.begin() as conn:
                    self._shown = {"ingest": json.loads(json.dumps(fetch_status(conn), default=str))}
                self._shown_at = time.monotonic()
            return self._shown


@contextmanager
def serve_ingest(settings: Settings, engine: sa.Engine, *, enabled: bool = True) -> Iterator[Alive]:
    """Serve /health, /ready, /metrics and /status of ingest; yield what the worker calls as its sign of life."""
    signs = _Signs(engine)
    if not enabled:
        yield signs.alive
        return
    app = create_app(
        health=lambda: assess(signs.facts()).to_json(), ready=lambda: ready(signs.facts()), status=signs.show_status
    )
    monitoring = settings.monitoring
    server = serve(app, monitoring.host, monitoring.ingest_port, port_setting="CODELUPE_INGEST_PORT")
    try:
        yield signs.alive
    finally:
        server.close()


def _normalise(sources: Sequence[str], *, stdlib: bool) -> list[Source]:
    try:
        found = [normalise_source(text) for text in sources]
    except SourceError as error:
        raise click.ClickException(str(error)) from error
    found += [standard_library()] if stdlib else []
    if not found:
        raise click.UsageError("name at least one source, or --stdlib")
    return found


@contextmanager
def _stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at SIGTERM and Ctrl-C; the handlers before come back afterwards."""

    def handle(_: int, __: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _describe_status(report: dict[str, Any]) -> Iterator[str]:
    yield "queue: " + ", ".join(f"{num} {state}" for state, num in report["queue"].items())
    for row in report["sources"]:
        score = "" if row["quality_score"] is None else f", score {row['quality_score']:.0f}"
        reason = f" ({row['reason']})" if row["reason"] else ""
        yield f"  {row['state']:<8}{row['source']}: {row['file_count']} files{score}{reason}"
    if report["refusals"]:
        yield "refused: " + ", ".join(f"{num} {reason}" for reason, num in report["refusals"].items())


def _describe_judgement(report: dict[str, Any]) -> Iterator[str]:
    yield f"{report['path']}: {report['language'] or 'no known language'}, licence {report['licence'] or 'not stated'}"
    if not report["accepted"]:
        yield f"refused: {report['reason']} ({report['detail']})"
        return
    yield f"accepted, score {report['score']:.1f} of 100"
    for name, value in report["components"].items():
        details = ", ".join(f"{key} {value}" for key, value in report["details"][name].items())
        yield f"  {name:<{_COMPONENT_WIDTH}}{value:5.1f}  {details}"
