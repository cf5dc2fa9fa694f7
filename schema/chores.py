"""Chores that come round: whichever worker comes first does one, and the row says when it is due again."""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.tables import Chore

# Whoever takes a chore and dies leaves it to the next one after so long.
_TAKEN_FOR = dt.timedelta(hours=1)


def take_chore(conn: sa.Connection, name: str, *, every: dt.timedelta) -> bool:
    """Take a chore that is due, or was never done; False when it is not due, or another is at it.

    A time that lies further ahead than it can was written before the clock was set back.
    """
    taken = sa.func.now() + _TAKEN_FOR
    is_due = sa.or_(Chore.due_at <= sa.func.now(), Chore.due_at > sa.func.now() + 2 * max(every, _TAKEN_FOR))
    new = insert(Chore).values(name=name, due_at=taken)
    again = new.on_conflict_do_update(index_elements=["name"], set_={"due_at": taken}, where=is_due)
    return conn.execute(again.returning(Chore.name)).one_or_none() is not None


def finish_chore(conn: sa.Connection, name: str, *, every: dt.timedelta, figures: dict[str, Any]) -> None:
    """Say that a chore was done, and what it did; it is due again after `every`."""
    values = {"due_at": sa.func.now() + every, "figures": figures}
    new = insert(Chore).values(name=name, **values)
    conn.execute(new.on_conflict_do_update(index_elements=["name"], set_=values))
