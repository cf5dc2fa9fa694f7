"""Which sources are due to be visited again."""

import datetime as dt

import sqlalchemy as sa

from schema.tables import Repository


def queue_due(conn: sa.Connection, *, interval_s: float) -> int:
    """Queue what the operator named again when its last visit is `interval_s` seconds ago; return how many.

    A source that had nothing to keep may have by then; others that were refused are for a person to look at.
    """
    is_well = sa.or_(
        Repository.state == "done",
        sa.and_(Repository.state == "refused", Repository.reason.in_(("empty", "nothing_accepted"))),
    )
    due = (
        sa.update(Repository)
        # A visit that lies ahead was recorded before the clock was set back.
        .where(
            Repository.origin == "operator",
            is_well,
            sa.or_(
                Repository.visited_at < sa.func.now() - dt.timedelta(seconds=interval_s),
                Repository.visited_at > sa.func.now(),
            ),
        )
        .values(state="queued", attempts=0, reason=None, not_before=sa.func.now())
    )
    return conn.execute(due).rowcount
