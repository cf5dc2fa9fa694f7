"""Backups: every row of one snapshot of the database in one file, made while everything else goes on."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql

from schema.backup_file import (
    MANIFEST,
    BackupError,
    DigestingFile,
    Manifest,
    Sequence,
    TableEntry,
    member_of,
)
from schema.database import UPGRADE_LOCK, fetch_revision
from schema.tables import Base

# Text shrinks to a quarter; the levels above cost twice the time for a tenth of that.
_LEVEL = 3
_SHOW_EVERY_ROWS = 5_000

Show = Callable[[str, int, int | None], None]
"""Is told a table, its rows so far, and how many there will be where that is known."""

_SEQUENCES = sa.text(
    """
    SELECT column_name, pg_get_serial_sequence(quote_ident(table_name), column_name)
    FROM information_schema.columns
    WHERE table_schema = current_schema() AND table_name = :table AND is_identity = 'YES'
    """
)


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made."""

    file: Path
    num_bytes: int
    sha256: str  # of the whole file, to compare copies by
    manifest: Manifest


def make_backup(engine: sa.Engine, file: Path, *, show: Show) -> Backup:
    """Write a backup of the database as it is now to the new file `file`, which appears whole or not at all.

    Writers are not held up; an upgrade waits until it is over.

    Raises:
        BackupError: the file is there already, or the database holds no tables of ours.
    """
    _refuse_existing(file)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        # For the owner's eyes: the rows may hold private code.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            digesting = DigestingFile(out)
            with zipfile.ZipFile(digesting, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
                manifest = _write(engine, archive, show)
            out.flush()
            os.fsync(out.fileno())
            num_bytes = out.tell()
        _refuse_existing(file)
        temporary.rename(file)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(temporary)  # a full disk: the message names the place
        raise
    _sync_folder(file.parent)
    return Backup(file, num_bytes, digesting.sha256, manifest)


def _refuse_existing(file: Path) -> None:
    if file.exists():
        raise BackupError(f"{file} is there already: name another file, or remove it first")


def _write(engine: sa.Engine, archive: zipfile.ZipFile, show: Show) -> Manifest:
    with _snapshot(engine) as conn:
        revision = fetch_revision(conn)
        if revision is None:
            raise BackupError("the database has no tables of codelupe: there is nothing to back up")
        made_at = conn.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        server = str(conn.execute(sa.text("SHOW server_version")).scalar_one())
        present = set(sa.inspect(conn).get_table_names())
        names = [table.name for table in Base.metadata.sorted_tables if table.name in present]
        tables = [_write_table(conn, archive, name, show) for name in names]
        manifest = Manifest(
            made_at=made_at, codelupe=version("codelupe"), server=server, revision=revision, tables=tables
        )
    archive.writestr(MANIFEST, manifest.model_dump_json(indent=2))
    return manifest


@contextmanager
def _snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection that sees one moment, and whose tables no upgrade changes meanwhile."""
    with engine.connect() as conn:
        try:
            conn.execute(sa.text("SET statement_timeout = 0"))
            # The session's lock, not the transaction's: that one would be taken after its snapshot.
            conn.execute(sa.select(sa.func.pg_advisory_lock_shared(UPGRADE_LOCK)))
            conn.commit()
            conn.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            yield conn
        finally:
            conn.invalidate()  # nobody else gets the session, and its lock ends with it


def _write_table(conn: sa.Connection, archive: zipfile.ZipFile, name: str, show: Show) -> TableEntry:
    columns = [column["name"] for column in sa.inspect(conn).get_columns(name)]
    digest, num_bytes, num_rows = hashlib.sha256(), 0, 0
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(name)
    )
    with archive.open(member_of(name), "w", force_zip64=True) as out, driver_of(conn).cursor() as cursor:
        with cursor.copy(query) as copy:
            for block in copy:
                digest.update(block)
                num_bytes += out.write(block)
                num_rows += 1  # the server sends a row at a time
                if num_rows % _SHOW_EVERY_ROWS == 0:
                    show(name, num_rows, None)
        num_rows = cursor.rowcount
    show(name, num_rows, num_rows)
    # After the rows: a number that is handed out meanwhile is skipped, never handed out again.
    sequences = [
        Sequence(column=column, **_read_sequence(conn, sequence))
        for column, sequence in conn.execute(_SEQUENCES, {"table": name})
    ]
    return TableEntry(
        name=name,
        columns=columns,
        sequences=sequences,
        num_rows=num_rows,
        num_bytes=num_bytes,
        sha256=digest.hexdigest(),
    )


def _read_sequence(conn: sa.Connection, sequence: str) -> dict[str, Any]:
    # The server's own answer to pg_get_serial_sequence: quoted where it needs to be.
    row = conn.execute(sa.text(f"SELECT last_value, is_called FROM {sequence}"))  # noqa: S608
    return dict(row.mappings().one())


def driver_of(conn: sa.Connection) -> "psycopg.Connection[Any]":
    """Return psycopg's connection, for COPY."""
    driver: psycopg.Connection[Any] = conn.connection.driver_connection  # type: ignore[assignment]
    return driver


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
