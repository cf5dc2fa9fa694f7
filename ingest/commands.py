"""`codelupe ingest`: queue sources, work through them, see the queue, explain a judgement."""

import json
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa

from ingest.benchmarks import benchmark_list
from ingest.config import Settings
from ingest.entries import show_text
from ingest.github.commands import crawl
from ingest.indexing import index_files
from ingest.judge import Judgement, judge_file
from ingest.licensing import find_licence
from ingest.lists import Listed, read_list
from ingest.opt_outs import apply_opt_outs, check_pattern, is_source_opted_out, read_patterns
from ingest.report import report
from ingest.rescoring import rescore
from ingest.retention import prune
from ingest.serving import serve_ingest
from ingest.sources import Source, SourceError, normalise_source, standard_library
from ingest.status import status
from ingest.worker import work as run_worker
from monitoring.logs import setup_logging
from monitoring.progress import Progress
from monitoring.stopping import stop_on_signals, until_stopped
from schema.commands import connect_engine, open_engine, prepare_tables
from schema.database import outlast
from schema.opt_outs import add_opt_outs, fetch_opt_outs, forget_opt_outs
from schema.repositories import add_source
from schema.stalls import cut_when_stopped
from sourcecode.filters import judge_size
from sourcecode.licences import is_allowed
from sourcecode.limits import Limits

_COMPONENT_WIDTH = 15


@click.group()
def ingest() -> None:
    """Fill the tables with source code."""


ingest.add_command(benchmark_list)
ingest.add_command(crawl)
ingest.add_command(prune)
ingest.add_command(report)
ingest.add_command(rescore)
ingest.add_command(status)


@ingest.command()
@click.argument("sources", nargs=-1)
@click.option(
    "--list",
    "lists",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Add the sources of this file: one a line, or CSV with the header source,licence,priority.",
)
@click.option("--licence", help="SPDX expression that these sources are under, for example MIT.")
@click.option("--stdlib", is_flag=True, help="Add the running Python's standard library.")
@click.option("--priority", type=int, default=0, show_default=True, help="Higher ones are handled first.")
@click.pass_obj
def add(
    settings: Settings,
    sources: tuple[str, ...],
    lists: tuple[Path, ...],
    licence: str | None,
    stdlib: bool,
    priority: int,
) -> None:
    """Queue SOURCES: local folders, local git repositories, https:// or http:// git URLs.

    A source that is there already is visited again, and adds what has changed. What is opted out is not added.
    """
    found = _normalise(sources, lists, stdlib=stdlib)
    patterns = _read_opt_outs(settings)
    with open_engine(settings) as engine, engine.begin() as conn:
        add_opt_outs(conn, patterns)
        opted_out = fetch_opt_outs(conn)
        for entry in found:
            source = entry.source
            if is_source_opted_out(source, opted_out):
                click.echo(f"not added: {source.source} is opted out", err=True)
                continue
            order = priority if entry.priority is None else entry.priority
            is_new = queue_source(conn, source, licence=entry.licence or licence, priority=order)
            click.echo(f"{'added' if is_new else 'queued again'}: {source.kind} {source.source}", err=True)


@ingest.command("opt-out")
@click.argument("patterns", nargs=-1)
@click.option("--forget", is_flag=True, help="Take PATTERNS back; what they took out comes back when it is added.")
@click.pass_obj
def opt_out(settings: Settings, patterns: tuple[str, ...], forget: bool) -> None:
    """Never take PATTERNS (owner/name, or globs over it), and take out what is stored of them.

    Applies the configured opt-out files too, and prints all patterns. Files leave training and their contents are
    dropped; what a run has trained on stays accounted. A run that is open keeps its contents until the next call.
    """
    try:
        given = [check_pattern(text) for text in patterns]
    except SourceError as error:
        raise click.ClickException(str(error)) from error
    configured = _read_opt_outs(settings)
    with open_engine(settings) as engine, engine.begin() as conn:
        if forget:
            click.echo(f"{forget_opt_outs(conn, given)} patterns forgotten", err=True)
            given = []
        removed = apply_opt_outs(conn, [*configured, *given])
        known = fetch_opt_outs(conn)
    words = f"{removed.num_repositories} sources, {removed.num_files} files, {removed.num_contents} contents"
    click.echo(f"taken out: {words}", err=True)
    click.echo("\n".join(known))


def _read_opt_outs(settings: Settings) -> list[str]:
    try:
        return read_patterns(settings.ingest.opt_out)
    except SourceError as error:
        raise click.ClickException(str(error)) from error


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
    """Handle queued sources until stopped; a database that is away is waited for."""
    stop = threading.Event()
    _read_opt_outs(settings)
    setup_logging(level=settings.monitoring.log_level, file=settings.home / "logs" / "ingest.log")
    with (
        stop_on_signals(stop),
        Progress(every_s=settings.monitoring.progress_every_s) as progress,
        ExitStack() as stack,
    ):
        connected = connect_engine(settings, "codelupe ingest")
        engine = until_stopped(stop, lambda: stack.enter_context(connected))
        if engine is None:
            return
        signs = stack.enter_context(serve_ingest(settings, engine, enabled=not no_server))
        stack.enter_context(cut_when_stopped(engine, stop))
        prepare = partial(prepare_tables, settings, engine)
        if until_stopped(stop, lambda: outlast(prepare, stop=stop, away=signs.away)):
            signs.alive(database_up=True)
            run_worker(
                engine,
                settings.ingest,
                home=settings.home,
                stop=stop,
                once=drain,
                progress=progress,
                alive=signs.alive,
            )


@ingest.command()
@click.pass_obj
def index(settings: Settings) -> None:
    """Let newcomers be compared with files that an older version stored; workers may run meanwhile."""
    stop = threading.Event()
    with stop_on_signals(stop), open_engine(settings) as engine:
        num_files = index_files(engine, stop=stop, show=lambda num: click.echo(f"{num} files", err=True))
    click.echo(f"indexed {num_files} files" + (", more remain" if stop.is_set() else ""))


@ingest.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--path", help="The file's path in its repository, for the rules about folders.  [default: its name]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def explain(settings: Settings, file: Path, path: str | None, as_json: bool) -> None:
    """Say how FILE would be judged, and why: the same code as the worker's."""
    report = explain_file(file, path or file.name, settings.ingest.limits).to_json()
    report["licence_allowed"] = is_allowed(report["licence"], settings.ingest.allowed_licences)
    click.echo(json.dumps(report) if as_json else "\n".join(_describe_judgement(report)))


def explain_file(file: Path, path: str, limits: Limits) -> Judgement:
    """Judge a file on disk as the worker would; of one that is too large no more is read than tells so."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise click.UsageError(f"{file}: not a plain file; a visit refuses it as special")
    with file.open("rb") as content:
        data = content.read(limits.max_file_bytes + 1)
    judgement = judge_file(
        path, data, limits, is_executable=bool(status.st_mode & stat.S_IXUSR), licence=find_licence(file)
    )
    refusal = judge_size(status.st_size, limits)
    return replace(judgement, detail=refusal[1]) if refusal and judgement.reason == refusal[0] else judgement


def _normalise(sources: Sequence[str], lists: Sequence[Path], *, stdlib: bool) -> list[Listed]:
    try:
        found = [Listed(normalise_source(text), None, None) for text in sources]
        found += [entry for file in lists for entry in read_list(file)]
    except SourceError as error:
        raise click.ClickException(str(error)) from error
    found += [Listed(standard_library(), None, None)] if stdlib else []
    if not found:
        raise click.UsageError("name at least one source, --list with entries, or --stdlib")
    return found


def _describe_judgement(report: dict[str, Any]) -> Iterator[str]:
    yield f"{show_text(report['path'])}: {report['language'] or 'no known language'}"
    policy = "allowed" if report["licence_allowed"] else "not allowed for what the crawler finds"
    yield f"licence {report['licence'] or 'not stated'} ({show_text(report['licence_evidence'])}): {policy}"
    if not report["accepted"]:
        yield f"refused: {report['reason']} ({show_text(report['detail'])})"
        return
    yield f"accepted, score {report['score']:.1f} of 100"
    yield from (f"  redacted: {place}" for place in report["redactions"])
    for name, value in report["components"].items():
        details = ", ".join(f"{key} {value}" for key, value in report["details"][name].items())
        yield f"  {name:<{_COMPONENT_WIDTH}}{value:5.1f}  {details}"
