"""`codelupe db backup` and `codelupe db restore`: the database in a file, and what of the models on disk fits it."""

import datetime as dt
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa

from daemon.config import Settings
from daemon.files import digest_file
from daemon.paths import LinePaths
from daemon.publish import MANIFEST
from monitoring.progress import Progress, Task
from schema.backup import Backup, Show, make_backup
from schema.backup_file import open_backup
from schema.backup_restore import Restored, restore_backup
from schema.commands import connect_engine, db
from schema.database import wait_for
from schema.lines import fetch_lines
from schema.versions import fetch_versions

_WAIT_S = 5.0
_PATTERN = "codelupe-*.zip"
# What a backup that was killed left; one that runs is younger.
_STALE_S = 86_400

_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@dataclass(frozen=True, slots=True)
class LineOnDisk:
    """A line's versions in the database beside the folders on this machine."""

    line: str
    current: int | None
    missing: list[int]  # in the database, not on disk
    other: list[int]  # on disk, and not what the database recorded
    unknown: list[int]  # on disk, not in the database

    @property
    def is_current_whole(self) -> bool:
        """Say whether the version in service is there."""
        return self.current not in (*self.missing, *self.other)


@db.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--keep", type=click.IntRange(min=1), help="Remove all but the newest N backups of the folder.")
@_as_json
@click.pass_obj
def backup(settings: Settings, file: Path | None, keep: int | None, as_json: bool) -> None:
    """Back the database up to FILE while everything runs.

    Without FILE, or where it is a folder, the backup gets a name by its time there (default: backups/ in the home).
    """
    folder = settings.home / "backups" if file is None else file
    if file is not None and not file.is_dir():
        if keep is not None:
            raise click.UsageError("--keep goes with a folder, in which every backup has a name by its time")
        target = file
    else:
        target = folder / f"codelupe-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}.zip"
    with _reach(settings) as engine, _show(settings) as show:
        made = make_backup(engine, target.absolute(), show=show)
    removed = [] if keep is None else remove_old(target.parent, keep=keep)
    click.echo(json.dumps(_report(made, removed), default=str) if as_json else "\n".join(_describe(made, removed)))


@db.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Lose the rows that the database holds now.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_as_json
@click.pass_context
def restore(context: click.Context, file: Path, replace: bool, yes: bool, as_json: bool) -> None:
    """Fill an empty database from the backup FILE, bring it up to date, and audit it.

    All or nothing: what goes wrong leaves the database as it was. Exits with 1 if the rows do not add up.
    """
    settings: Settings = context.obj
    with open_backup(file) as opened:  # before anything is asked: is it one at all?
        made_at = opened.manifest.made_at
    if replace and not yes:
        click.confirm(f"Replace all rows by those of {made_at:%Y-%m-%d %H:%M:%S} UTC?", abort=True, err=True)
    with _reach(settings) as engine, _show(settings) as show:
        done = restore_backup(engine, file, replace=replace, show=show)
        with engine.connect() as conn:
            lines = compare_lines(conn, settings.home)
    document = _report_restored(done, lines)
    click.echo(json.dumps(document, default=str) if as_json else "\n".join(_describe_restored(done, lines)))
    if done.report.rows_unaccounted:
        context.exit(1)


def remove_old(folder: Path, *, keep: int) -> list[Path]:
    """Remove all but the newest `keep` backups that have a name by their time, and what killed ones left."""
    old = sorted(folder.glob(_PATTERN))[:-keep]
    old += [path for path in folder.glob(f".{_PATTERN}.*.tmp") if time.time() - path.stat().st_mtime > _STALE_S]
    for path in old:
        path.unlink()
    return old


def compare_lines(conn: sa.Connection, home: Path) -> list[LineOnDisk]:
    """Compare every line's versions with the folders of this home."""
    return [
        _compare(LinePaths(home, line.name), line.current_version, fetch_versions(conn, line.id))
        for line in fetch_lines(conn)
    ]


def _compare(paths: LinePaths, current: int | None, versions: list[dict[str, Any]]) -> LineOnDisk:
    known = {one["number"]: one["manifest_digest"] for one in versions}
    folders = paths.versions.iterdir() if paths.versions.is_dir() else ()
    present = {int(path.name): path for path in folders if path.name.isdigit()}
    return LineOnDisk(
        line=paths.line,
        current=current,
        missing=sorted(known.keys() - present.keys()),
        other=sorted(n for n in known.keys() & present.keys() if not _is(present[n], known[n])),
        unknown=sorted(present.keys() - known.keys()),
    )


def _is(folder: Path, manifest_digest: str) -> bool:
    manifest = folder / MANIFEST
    return manifest.is_file() and digest_file(manifest) == manifest_digest


@contextmanager
def _reach(settings: Settings) -> Iterator[sa.Engine]:
    """Yield an engine on the database as it is: of whatever revision, with tables or without."""
    with connect_engine(settings, "codelupe db") as engine:
        wait_for(engine, timeout_s=_WAIT_S)
        yield engine


@contextmanager
def _show(settings: Settings) -> Iterator[Show]:
    tasks: dict[str, Task] = {}
    with Progress(every_s=settings.monitoring.progress_every_s) as progress:

        def show(table: str, num_rows: int, total: int | None) -> None:
            if table not in tasks:
                tasks[table] = progress.task(table, total)
            tasks[table].update(num_rows, total)
            if num_rows == total:
                tasks[table].done()

        yield show


def _report(made: Backup, removed: list[Path]) -> dict[str, Any]:
    manifest = made.manifest
    return {
        "file": made.file,
        "bytes": made.num_bytes,
        "sha256": made.sha256,
        "made_at": manifest.made_at,
        "revision": manifest.revision,
        "rows": manifest.num_rows,
        "tables": {table.name: table.num_rows for table in manifest.tables},
        "removed": removed,
    }


def _describe(made: Backup, removed: list[Path]) -> Iterator[str]:
    report = _report(made, removed)
    yield f"file      {made.file}"
    yield f"size      {made.num_bytes:,} bytes"
    yield from (f"{name:<10}{report[name]}" for name in ("sha256", "revision"))
    yield f"rows      {made.manifest.num_rows:,}"
    yield from (f"  {name:<24}{num:,}" for name, num in report["tables"].items() if num)
    yield from (f"removed   {path}" for path in removed)


def _report_restored(done: Restored, lines: list[LineOnDisk]) -> dict[str, Any]:
    return {
        "made_at": done.manifest.made_at,
        "revision": done.manifest.revision,
        "applied": done.applied,
        "rows": done.manifest.num_rows,
        "tables": {table.name: table.num_rows for table in done.manifest.tables},
        "kept_opt_outs": done.kept_opt_outs,
        "audit": asdict(done.report),
        "lines": [asdict(line) for line in lines],
    }


def _describe_restored(done: Restored, lines: list[LineOnDisk]) -> Iterator[str]:
    applied = f", upgraded by {', '.join(done.applied)}" if done.applied else ""
    yield f"restored     {done.manifest.num_rows:,} rows of {done.manifest.made_at:%Y-%m-%d %H:%M:%S} UTC"
    yield f"revision     {done.manifest.revision}{applied}"
    yield f"unaccounted  {done.report.rows_unaccounted}" + (
        ": `codelupe audit` names them" if done.report.rows_unaccounted else ""
    )
    if done.kept_opt_outs:
        yield f"opt-outs     {len(done.kept_opt_outs)} newer than the backup are kept: run `codelupe ingest opt-out`"
    for line in lines:
        yield from _describe_line(line)


def _describe_line(line: LineOnDisk) -> Iterator[str]:
    yield f"line {line.line}, current version {line.current or 'none'}"
    if not line.is_current_whole:
        yield "  the current version is not on this machine: copy its folder here, or `codelupe models rollback`"
    if line.missing:
        yield f"  not on disk: {_list(line.missing)}"
    if line.other:
        yield f"  on disk, but not what the database recorded: {_list(line.other)}"
    if line.unknown:
        yield f"  on disk, newer than the backup: {_list(line.unknown)}; set aside when their numbers come round"


def _list(numbers: list[int]) -> str:
    return ", ".join(f"{number:04d}" for number in numbers)
