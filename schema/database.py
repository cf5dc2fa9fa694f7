"""Engines, migrations, and telling an outage from a mistake."""

import datetime as dt
import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa

from schema.places import EmbeddedError

# Alembic takes as long to import as the rest of a command; only a look at the revision needs it.
if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 30
CONNECT_TIMEOUT_S = 10
# Advisory locks of one database: arbitrary numbers, but the same in every version of the code.
UPGRADE_LOCK = 0x636F6465_00000001
INGEST_LOCK = 0x636F6465_00000002
# The server went away, takes nobody in, or has run out of something: the same statement may work later.
_OUTAGES = {
    "25006": "the database has become read-only",
    "53100": "disk full on the database's machine",
    "53200": "out of memory on the database's machine",
    "53300": "too many connections to the database",
    "57P01": "the database was shut down",
    "57P02": "the database crashed",
    "57P03": "the database takes nobody in yet",
}
# What a server says to one that it will never let in; an error of connecting carries no SQLSTATE (28P01, 28000, 3D000).
_REFUSALS = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry|(role|database) .+ does not exist"
)
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 15.0


class RevisionMismatch(Exception):
    """The database's tables are of another version than this code."""


class DatabaseUnavailable(Exception):
    """Nobody answered in time."""


class DatabaseRefused(Exception):
    """The server answers and does not let us in: waiting would not help."""


def create_engine(url: str, *, application_name: str, pool_size: int = 5, statement_timeout_s: int = 60) -> sa.Engine:
    """Make an engine of at most `pool_size` connections; `url` may be a plain `postgresql://` one.

    Statements are never prepared on the server: a plan always sees its values (the partial indexes need that), and a
    pooler in between does no harm.
    """
    options = {
        "statement_timeout": f"{statement_timeout_s}s",
        "lock_timeout": f"{LOCK_TIMEOUT_S}s",
        "timezone": "UTC",
    }
    return sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={
            "application_name": application_name,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "prepare_threshold": None,
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            # A peer that vanished without a word is noticed within a minute.
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            # So is one that vanished while it owed us an answer: keepalives are silent then.
            "tcp_user_timeout": 60_000,  # ms
        },
    )


def upgrade(engine: sa.Engine) -> list[str]:
    """Bring the tables to this code's revision, all or nothing; return the revisions applied, oldest first.

    An advisory lock lets any number of processes do this at once: the later ones find nothing left to do.

    Raises:
        RevisionMismatch: the database is newer than this code.
    """
    with engine.begin() as conn:
        conn.execute(sa.text("SET LOCAL statement_timeout = 0"))
        conn.execute(sa.text("SET LOCAL lock_timeout = 0"))
        conn.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
        _refuse_newer(fetch_revision(conn))
        return migrate(conn, "head")


def migrate(conn: sa.Connection, revision: str) -> list[str]:
    """Bring the tables to a revision, in the transaction that is open; return the revisions applied, oldest first."""
    before = fetch_revision(conn)
    applied = [script.revision for script in _scripts().iterate_revisions(revision, before or "base")]
    if applied:
        from alembic import command

        command.upgrade(_config(conn), revision)
    return applied[::-1]


def check_revision(engine: sa.Engine) -> None:
    """Refuse a database whose tables are older or newer than this code.

    Raises:
        RevisionMismatch: it says which and what to do.
    """
    with engine.connect() as conn:
        found = fetch_revision(conn)
    _refuse_newer(found)
    if found != (head := _scripts().get_current_head()):
        msg = f"the database is at revision {found or 'none'}, this code needs {head}: run `codelupe db upgrade`"
        raise RevisionMismatch(msg)


def is_outage(error: BaseException) -> bool:
    """Say whether `error` means that the database is away, not that a statement was wrong."""
    if isinstance(error, DatabaseUnavailable | EmbeddedError | sa.exc.TimeoutError):
        return True  # the last: no connection of the pool came free in time, which passes like an outage
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    # Errors of the connection itself carry no SQLSTATE.
    return cause.sqlstate is None or cause.sqlstate.startswith("08") or cause.sqlstate in _OUTAGES


def is_locked_out(error: BaseException) -> bool:
    """Say whether `error` means that another holds a lock for long: a start that back-fills a line, a migration."""
    return isinstance(error, sa.exc.DBAPIError) and isinstance(error.orig, psycopg.errors.LockNotAvailable)


def describe_outage(error: BaseException) -> str:
    """Say in one line what an outage looks like from here; no error of the driver contains a password."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    first = next(iter(str(cause).strip().splitlines()), "no answer")
    known = _OUTAGES.get(getattr(cause, "sqlstate", None) or "")
    return f"{known}: {first}" if known else first


def reach(engine: sa.Engine) -> None:
    """Connect once, to see that the database answers.

    Raises:
        DatabaseRefused: it does not let us in. sqlalchemy.exc.DBAPIError: an outage, for `is_outage` to tell.
    """
    try:
        with engine.connect():
            return
    except sa.exc.DBAPIError as error:
        if _REFUSALS.search(str(error.orig)):
            msg = f"{_name(engine.url)} does not let us in: {describe_outage(error)}: correct CODELUPE_DATABASE_URL"
            raise DatabaseRefused(msg) from error
        raise


def wait_for(engine: sa.Engine, *, timeout_s: float) -> None:
    """Return when the database answers.

    Raises:
        DatabaseUnavailable: it did not within `timeout_s` seconds. DatabaseRefused: it never will.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return reach(engine)
        except sa.exc.DBAPIError as error:
            if not is_outage(error):
                raise
            if time.monotonic() >= deadline:
                msg = f"no answer from {_name(engine.url)} within {timeout_s:g} s: {error.orig}"
                raise DatabaseUnavailable(msg) from error
        time.sleep(0.1)


def outlast(step: Callable[[], None], *, stop: threading.Event, away: Callable[[str], None]) -> bool:
    """Do `step`, again from its beginning after each outage, with back-off; return whether it was done before `stop`.

    A lock that another start holds for long, while it back-fills a line, passes like an outage. `away` is told each
    time what is wrong, in words.
    """
    began, wait_s = time.monotonic(), _FIRST_WAIT_S
    while not stop.is_set():
        try:
            step()
        except Exception as error:
            if not (is_outage(error) or is_locked_out(error)):
                raise
            words = describe_outage(error)
        else:
            return True
        away(words)
        log.warning(
            "the database is away, for %.0f s now; next try in %.0f s: %s",
            time.monotonic() - began,
            wait_s,
            words,
            extra={"event": "database_away"},
        )
        stop.wait(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
    return False


def _name(url: sa.URL) -> str:
    """Return the URL for people: SQLAlchemy hides the password before the host, not one among the parameters."""
    return repr(url.difference_update_query(["password", "sslpassword"]))


def fetch_now(conn: sa.Connection) -> dt.datetime:
    """Return the database's time, the only clock that leases and back-offs know."""
    now: dt.datetime = conn.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return now


def is_known_revision(revision: str) -> bool:
    """Say whether this code has a migration to a revision."""
    return revision in {script.revision for script in _scripts().walk_revisions()}


def _refuse_newer(revision: str | None) -> None:
    if revision is not None and not is_known_revision(revision):
        msg = f"the database is at revision {revision}, newer than this code knows: install the newer codelupe"
        raise RevisionMismatch(msg)


def fetch_revision(conn: sa.Connection) -> str | None:
    """Fetch the revision of the database's tables, None where there are none of ours."""
    from alembic.migration import MigrationContext

    return MigrationContext.configure(conn).get_current_revision()


def _config(conn: sa.Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = conn
    return config


def _scripts() -> "ScriptDirectory":
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(__file__).with_name("migrations")))
