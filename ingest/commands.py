"""`codelupe ingest`: queue sources, work through them; the other commands have files of their own."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import click
import sqlalchemy as sa

from ingest.benchmarks import benchmark_list
from ingest.config import Settings
from ingest.explain import explain
from ingest.github.commands import crawl
from ingest.indexing import index_files
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


@click.group()
def ingest() -> None:
    """Fill the tables with source code."""


ingest.add_command(benchmark_list)
ingest.add_command(crawl)
ingest.add_command(explain)
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
    with _bar(len(found)) as update, open_engine(settings) as engine, engine.begin() as conn:
        add_opt_outs(conn, patterns)
        opted_out = fetch_opt_outs(conn)
        for number, entry in enumerate(found, start=1):
            is_refused = is_source_opted_out(entry.source, opted_out)
            words = _refuse(entry) if is_refused else _queue(conn, entry, licence, priority)
            click.echo(words, file=sys.stderr)  # not `err`, which would write past the bar
            update(number)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Yield what to call with the number of sources that are done: it moves a bar where there are several."""
    if total == 1:
        yield lambda _: None
        return
    with Progress() as progress:
        yield progress.task("add", total=total).update


def _refuse(entry: Listed) -> str:
    return f"not added: {entry.source.source} is opted out"


def _queue(conn: sa.Connection, entry: Listed, licence: str | None, priority: int) -> str:
    source, order = entry.source, priority if entry.priority is None else entry.priority
    is_new = queue_source(conn, source, licence=entry.licence or licence, priority=order)
    return f"{'added' if is_new else 'queued again'}: {source.kind} {source.source}"


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
