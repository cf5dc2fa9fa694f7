"""Lines: opening one back-fills its queue; whether it is paused; its back-off."""

import datetime as dt
from dataclasses import dataclass, fields, replace

import sqlalchemy as sa

from schema import tables
from schema.backlog import enqueue_files, lock_ingest
from schema.caps import cap_line

LONGEST_BACK_OFF_S = 86_400


class BaseChanged(Exception):
    """A line's name stands for one base model for ever."""


@dataclass(frozen=True, slots=True)
class Line:
    """One lineage of adapters; `not_before` and `num_failures` are its back-off."""

    id: int
    name: str
    base_model: str
    base_revision: str | None
    tokenizer_digest: str | None
    current_version: int | None
    paused: bool
    not_before: dt.datetime
    num_failures: int
    max_owner_rows: int


_COLUMNS = [tables.Line.__table__.c[field.name] for field in fields(Line)]


def open_line(conn: sa.Connection, *, name: str, base_model: str, max_owner_rows: int | None = None) -> Line:
    """Return the line of this name; make it, with every stored item pending, if there is none.

    With `max_owner_rows` the line's cap is changed, if it is another, and what is pending brought under it.

    Raises:
        BaseChanged: the line has another base model.
    """
    line = fetch_line(conn, name)
    if line is None:
        lock_ingest(conn)
        line = fetch_line(conn, name) or _make_line(conn, name, base_model)
    if line.base_model != base_model:
        msg = (
            f"line {name!r} trains {line.base_model}, not {base_model}: "
            f"choose another name for the new line (CODELUPE_LINE), or the line's own base"
        )
        raise BaseChanged(msg)
    if max_owner_rows is not None and line.max_owner_rows != max_owner_rows:
        lock_ingest(conn)
        conn.execute(_one(line.id).values(max_owner_rows=max_owner_rows))
        cap_line(conn, line.id)
        line = replace(line, max_owner_rows=max_owner_rows)
    return line


def fetch_line(conn: sa.Connection, name: str) -> Line | None:
    """Fetch a line by its name."""
    row = conn.execute(sa.select(*_COLUMNS).where(tables.Line.name == name)).one_or_none()
    return Line(*row) if row else None


def fetch_lines(conn: sa.Connection) -> list[Line]:
    """Fetch every line, by their names."""
    return [Line(*row) for row in conn.execute(sa.select(*_COLUMNS).order_by(tables.Line.name))]


def back_off_left_s(line: Line, now: dt.datetime) -> float:
    """Return for how long the line must not start a run yet, seconds; `now` is the database's.

    Further ahead than a back-off can be, its end was written before the clock was set back: it counts as reached.
    """
    left_s = (line.not_before - now).total_seconds()
    return left_s if 0 < left_s <= LONGEST_BACK_OFF_S else 0.0


def set_tokenizer(conn: sa.Connection, line_id: int, digest: str, base_revision: str | None) -> None:
    """Record the tokenizer and the revision of the base that the line trains with."""
    conn.execute(_one(line_id).values(tokenizer_digest=digest, base_revision=base_revision))


def set_paused(conn: sa.Connection, line_id: int, paused: bool) -> None:
    """Pause a line or let it go on."""
    conn.execute(_one(line_id).values(paused=paused))


def put_off(conn: sa.Connection, line_id: int, delay_s: float) -> None:
    """Keep the line from starting a run for `delay_s` seconds, without a failure: the operator ended one."""
    later = sa.func.clock_timestamp() + dt.timedelta(seconds=delay_s)
    conn.execute(_one(line_id).values(not_before=later))


def back_off(conn: sa.Connection, line_id: int, delay_s: float | None) -> None:
    """Count a failure and keep the line from starting a run for `delay_s` seconds; None: all is well again."""
    if delay_s is None:
        values = {"num_failures": sa.literal(0), "not_before": sa.func.now()}
    else:
        later = sa.func.clock_timestamp() + dt.timedelta(seconds=delay_s)
        values = {"num_failures": tables.Line.num_failures + 1, "not_before": later}
    conn.execute(_one(line_id).values(**values))


def _make_line(conn: sa.Connection, name: str, base_model: str) -> Line:
    # Millions of files may be stored: the back-fill takes as long as it takes.
    conn.execute(sa.text("SET LOCAL statement_timeout = 0"))
    new = sa.insert(tables.Line).values(name=name, base_model=base_model).returning(*_COLUMNS)
    line = Line(*conn.execute(new).one())
    enqueue_files(conn, line_id=line.id)
    cap_line(conn, line.id)
    return line


def _one(line_id: int) -> sa.Update:
    return sa.update(tables.Line).where(tables.Line.id == line_id)
