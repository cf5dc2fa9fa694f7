"""Restoring a backup, all or nothing: the tables of its revision, its rows, the way up to this code's, the audit."""

import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
import sqlalchemy as sa
from psycopg import sql

from schema.audit import AuditReport, audit
from schema.backup import Show, driver_of
from schema.backup_file import BackupError, BackupFile, DamagedBackup, Manifest, TableEntry, open_backup
from schema.database import UPGRADE_LOCK, fetch_revision, is_known_revision, migrate
from schema.opt_outs import add_opt_outs, fetch_opt_outs
from schema.tables import Base

# The backend of a command that has just ended is there a moment longer; PostgreSQL itself waits as long for the others
# of a database that it is to drop.
LEAVING_S = 5.0
_POLL_S = 0.05
_VERSION_TABLE = "alembic_version"
_OTHERS = sa.text(
    """
    SELECT DISTINCT pid, application_name FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'codelupe%'
    ORDER BY pid
    """
)


class NotEmpty(BackupError):
    """The database that was to be filled holds rows."""

    def __init__(self, rows: dict[str, int]) -> None:
        self.rows = rows
        words = ", ".join(f"{name} {num:,}" for name, num in rows.items())
        super().__init__(
            f"the database holds rows ({words}): restore into an empty one, or give --replace to lose these"
        )


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did, and how the rows add up after it."""

    manifest: Manifest
    applied: list[str]  # revisions from the backup's to this code's
    kept_opt_outs: list[str]  # patterns of the replaced database that the backup did not know
    report: AuditReport


def restore_backup(engine: sa.Engine, file: Path, *, replace: bool, show: Show) -> Restored:
    """Fill the database from a backup and bring it to this code's revision, in one transaction.

    A database with rows is refused unless `replace` says that they may go. Its opt-outs stay: what somebody has asked
    to be taken out since the backup must not come back unasked.

    Raises:
        NotEmpty: there are rows, and not `replace`. DamagedBackup: the file is not what was written.
        BackupError: it is of a newer revision, or codelupe still runs on the database.
    """
    with open_backup(file) as backup:
        manifest = backup.manifest
        if not is_known_revision(manifest.revision):
            raise BackupError(
                f"{file} is at revision {manifest.revision}, newer than this code knows: install the newer codelupe"
            )
        with engine.begin() as conn:
            _take_over(conn)
            if (rows := count_rows(conn)) and not replace:
                raise NotEmpty(rows)
            opt_outs = fetch_opt_outs(conn) if "opt_outs" in rows else []
            _drop_tables(conn)
            migrate(conn, manifest.revision)
            _fill(conn, backup, show)
            applied = migrate(conn, "head")
            kept = sorted(set(opt_outs) - set(fetch_opt_outs(conn)))
            add_opt_outs(conn, kept)
            conn.execute(sa.text("ANALYZE"))
            return Restored(manifest, applied, kept, audit(conn))


def count_rows(conn: sa.Connection) -> dict[str, int]:
    """Count the rows of our tables, as far as they are there and hold any."""
    counts = {
        table.name: conn.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in _present(conn)
    }
    return {name: num for name, num in counts.items() if num}


def _take_over(conn: sa.Connection) -> None:
    """Keep upgrades out until the end; nobody of codelupe may be at work."""
    conn.execute(sa.text("SET LOCAL statement_timeout = 0"))
    conn.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
    until = time.monotonic() + LEAVING_S
    while others := conn.execute(_OTHERS).all():
        if time.monotonic() > until:
            named = ", ".join(f"{row.application_name} (backend {row.pid})" for row in others)
            raise BackupError(f"codelupe is at work on this database: {named}: stop it first")
        time.sleep(_POLL_S)
        # A transaction sees those who are connected as they were when it first looked.
        conn.execute(sa.select(sa.func.pg_stat_clear_snapshot()))


def _present(conn: sa.Connection) -> list[sa.Table]:
    names = set(sa.inspect(conn).get_table_names())
    return [table for table in Base.metadata.sorted_tables if table.name in names]


def _drop_tables(conn: sa.Connection) -> None:
    names = [table.name for table in _present(conn)]
    if fetch_revision(conn) is not None:
        names.append(_VERSION_TABLE)
    if names:
        driver_of(conn).execute(sql.SQL("DROP TABLE {}").format(sql.SQL(", ").join(map(sql.Identifier, names))))


def _fill(conn: sa.Connection, backup: BackupFile, show: Show) -> None:
    _refuse_other_tables(conn, backup)
    for table in backup.manifest.tables:
        _fill_table(conn, backup, table, show)
        for sequence in table.sequences:
            conn.execute(
                sa.select(
                    sa.func.setval(
                        sa.func.pg_get_serial_sequence(table.name, sequence.column),
                        sequence.last_value,
                        sequence.is_called,
                    )
                )
            )


def _refuse_other_tables(conn: sa.Connection, backup: BackupFile) -> None:
    found = {table.name for table in _present(conn)}
    listed = {table.name for table in backup.manifest.tables}
    if found != listed:
        raise DamagedBackup(
            backup.file, f"its tables are not those of its revision: {', '.join(sorted(found ^ listed))}"
        )


def _fill_table(conn: sa.Connection, backup: BackupFile, table: TableEntry, show: Show) -> None:
    query = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    )
    num_bytes = 0
    with driver_of(conn).cursor() as cursor:
        try:
            with cursor.copy(query) as copy:
                for chunk in backup.read_table(table):
                    copy.write(chunk)
                    num_bytes += len(chunk)
                    show(table.name, table.num_rows * num_bytes // table.num_bytes, table.num_rows)
        except (psycopg.DataError, psycopg.errors.UndefinedColumn) as error:
            raise DamagedBackup(backup.file, f"{table.member}: {error}") from error
        if cursor.rowcount != table.num_rows:
            raise DamagedBackup(backup.file, f"{table.member} has {cursor.rowcount} rows, not {table.num_rows}")
