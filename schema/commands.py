"""`codelupe db` and `codelupe audit`, and how every command gets its engine."""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import click
import sqlalchemy as sa

from schema.audit import AuditReport
from schema.audit import audit as audit_rows
from schema.config import DatabaseSettings
from schema.database import check_revision, create_engine, reach, upgrade, wait_for
from schema.embedded import EmbeddedServer, open_server, server_status, stop_server

log = logging.getLogger(__name__)
# A command that reports waits so long for a server; the services wait for ever (`outlast`).
_WAIT_S = 5.0


class HasDatabase(Protocol):
    """What these commands need of the settings."""

    @property
    def home(self) -> Path:
        """The folder of all data."""

    @property
    def database(self) -> DatabaseSettings:
        """The database section."""


@contextmanager
def open_engine(settings: HasDatabase, *, application_name: str = "codelupe") -> Iterator[sa.Engine]:
    """Yield an engine on a server that answers and whose tables are of this code's revision.

    Raises:
        RevisionMismatch: they are not. EmbeddedError: the embedded server does not start.
        DatabaseUnavailable: another one does not answer. DatabaseRefused: it does not let us in.
    """
    with connect_engine(settings, application_name) as engine:
        wait_for(engine, timeout_s=_WAIT_S)
        prepare_tables(settings, engine)
        yield engine


def prepare_tables(settings: HasDatabase, engine: sa.Engine, *, migrate: bool = False) -> None:
    """Make sure that the tables are of this code's revision: upgrade the embedded database, another's with `migrate`.

    Raises:
        RevisionMismatch: they are not. DatabaseRefused: the server does not let us in.
    """
    reach(engine)
    if migrate or settings.database.database_url is None:
        upgrade(engine)
    check_revision(engine)


@click.group()
def db() -> None:
    """Run the embedded database, and bring the tables up to date."""


@db.command()
@click.pass_obj
def start(settings: HasDatabase) -> None:
    """Start the embedded database and keep it running without clients."""
    _refuse_foreign(settings)
    with open_server(settings.home, postgres_bin=settings.database.postgres_bin, pinned=True, purpose="codelupe db"):
        with open_engine(settings):
            pass
        click.echo(_fetch_url(settings))


@db.command()
@click.pass_obj
def stop(settings: HasDatabase) -> None:
    """Stop the embedded database; refused while something uses it."""
    _refuse_foreign(settings)
    click.echo("stopped" if stop_server(settings.home) else "was not running", err=True)


@db.command("upgrade")
@click.pass_obj
def upgrade_command(settings: HasDatabase) -> None:
    """Bring the tables to this version's revision."""
    with connect_engine(settings, "codelupe") as engine:
        wait_for(engine, timeout_s=_WAIT_S)
        applied = upgrade(engine)
    click.echo(f"applied {', '.join(applied)}" if applied else "the tables are up to date", err=True)


@db.command()
@click.pass_obj
def url(settings: HasDatabase) -> None:
    """Print the database's URL, for psql and the like; it may contain a password."""
    click.echo(_fetch_url(settings))


@click.command("audit")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def audit(context: click.Context, as_json: bool) -> None:
    """Prove that every row is accounted for; exit with 1 and name the rows where it does not add up."""
    with open_engine(context.obj) as engine, engine.connect() as conn:
        report = audit_rows(conn)
    click.echo(report.to_json() if as_json else "\n".join(_describe(report)))
    if report.rows_unaccounted:
        context.exit(1)


def _describe(report: AuditReport) -> Iterator[str]:
    yield f"rows         {report.rows_total}"
    for line, states in report.by_line.items():
        yield f"line {line}"
        yield from (f"  {state:<12}{num}" for state, num in states.items())
    yield f"unaccounted  {report.rows_unaccounted}"
    yield from (f"  {problem}: {num}" for problem, num in report.problems.items())
    yield from map(_describe_row, report.unaccounted)
    if report.rows_unaccounted > len(report.unaccounted):
        yield f"  … and {report.rows_unaccounted - len(report.unaccounted)} more"


def _describe_row(row: dict[str, Any]) -> str:
    where = f"{row['repository']} {row['file_path']}" if row["file_path"] else "stored nowhere"
    run = "" if row["run"] is None else f", run {row['run']}"
    return f"  {row['line']}: {row['item_kind']} {row['item_id']}: {row['problem']}{run} ({where})"


@contextmanager
def connect_engine(settings: HasDatabase, application_name: str = "codelupe") -> Iterator[sa.Engine]:
    """Yield an engine on the configured server, answering or not, or on the embedded one, which runs at least as long.

    Raises:
        EmbeddedError: the embedded server does not start.
    """
    with ExitStack() as stack:
        membership = None
        if settings.database.database_url is not None:
            server_url = settings.database.database_url.get_secret_value()
        else:
            membership = _Membership(settings, application_name)
            stack.callback(membership.leave)
            server_url = membership.server.url
        engine = create_engine(
            server_url,
            application_name=application_name,
            pool_size=settings.database.pool_size,
            statement_timeout_s=settings.database.statement_timeout_s,
        )
        stack.callback(engine.dispose)
        if membership is not None:
            sa.event.listen(engine, "do_connect", membership.renew)
        yield engine


class _Membership:
    """Our place at the embedded server. A keeper that was killed is started again by whoever connects next."""

    def __init__(self, settings: HasDatabase, purpose: str) -> None:
        self._settings, self._purpose = settings, purpose
        self._lock = threading.Lock()
        self.server = self._join()

    def renew(self, *_: object) -> None:
        """Join again where the keeper has gone; the URL stays the same."""
        with self._lock:
            if not self.server.is_alive():
                self.server.close()
                self.server = self._join()

    def leave(self) -> None:
        """Leave the server, which stops after its last client."""
        self.server.close()
        log.info("left the database", extra={"event": "database_left"})

    def _join(self) -> EmbeddedServer:
        binaries = self._settings.database.postgres_bin
        return open_server(self._settings.home, postgres_bin=binaries, purpose=self._purpose)


def _fetch_url(settings: HasDatabase) -> str:
    if settings.database.database_url is not None:
        found = settings.database.database_url.get_secret_value()
    elif (status := server_status(settings.home)) is not None:
        found = status.url
    else:
        raise click.ClickException("the embedded database is not running: `codelupe db start` starts it")
    return sa.make_url(found).set(drivername="postgresql").render_as_string(hide_password=False)


def _refuse_foreign(settings: HasDatabase) -> None:
    if settings.database.database_url is not None:
        raise click.ClickException("CODELUPE_DATABASE_URL names a server that is not codelupe's to start or stop")
