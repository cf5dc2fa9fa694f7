"""Which sources are due to be visited again."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from schema.evidence import NAMED
from schema.tables import Repository

# A source that had nothing to keep may have by then; others that were refused are for a person to look at.
_MAY_CHANGE = ("empty", "nothing_accepted")
_JUDGED = ("nothing_accepted", "licence")
_QUEUED = {"state": "queued", "attempts": 0, "reason": None, "not_before": sa.func.now()}
# The licence as somebody stated it: what a visit found is looked for again.
stated_licence: sa.ColumnElement[str | None] = sa.case(
    (sa.func.coalesce(Repository.licence_evidence, NAMED) == NAMED, Repository.licence)
)


def add_licences(rules: str, *, api: str | None, stated: str | None) -> str:
    """Return the name of rules together with what GitHub and the operator say of a source's licence."""
    return f"{rules}:{api or ''}:{stated or ''}"


def queue_due(conn: sa.Connection, *, interval_s: float, rules: Mapping[str, str], max_attempts: int) -> int:
    """Queue what the operator named again when its last visit is `interval_s` seconds ago; return how many.

    What other rules than the present ones (by origin) have judged waits for its turn among those. What was given up,
    dead or not found, is tried once: the attempt that it gets is the last one of `max_attempts`.
    """
    is_well = sa.or_(
        Repository.state == "done", sa.and_(Repository.state == "refused", Repository.reason.in_(_MAY_CHANGE))
    )
    is_visited_well = sa.and_(is_well, ~_is_outdated(rules), _is_past(Repository.visited_at, interval_s))
    # An attempt that failed is no visit: when the last one of a dead source ended stands in not_before.
    is_dead = sa.and_(Repository.state == "dead", _is_past(Repository.not_before, interval_s))
    is_missing = sa.and_(
        Repository.state == "refused", Repository.reason == "not_found", _is_past(Repository.visited_at, interval_s)
    )
    due = (
        sa.select(Repository.id)
        .where(Repository.origin == "operator", sa.or_(is_visited_well, is_dead, is_missing))
        # Whoever holds one of them is changing it, and no order of locks is to be kept.
        .with_for_update(skip_locked=True)
    )
    attempts = sa.case((sa.or_(is_dead, is_missing), max_attempts - 1), else_=0)
    queued = sa.update(Repository).where(Repository.id.in_(due)).values(_QUEUED | {"attempts": attempts})
    return conn.execute(queued).rowcount


def queue_outdated(conn: sa.Connection, *, rules: Mapping[str, str]) -> int:
    """Queue the source that other rules have judged, and whose visit is longest ago; return how many: 1 or 0."""
    is_judged = sa.or_(
        Repository.state == "done", sa.and_(Repository.state == "refused", Repository.reason.in_(_JUDGED))
    )
    oldest = (
        sa.select(Repository.id)
        .where(is_judged, Repository.visited_at.is_not(None), _is_outdated(rules))
        .order_by(Repository.visited_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return conn.execute(sa.update(Repository).where(Repository.id.in_(oldest)).values(_QUEUED)).rowcount


def _is_past(time: sa.orm.InstrumentedAttribute[Any], interval_s: float) -> sa.ColumnElement[bool]:
    """Say whether a time is `interval_s` seconds ago, or lies ahead: it was written before the clock was set back."""
    now = sa.func.statement_timestamp()
    return sa.or_(time < now - dt.timedelta(seconds=interval_s), time > now)


def _is_outdated(rules: Mapping[str, str]) -> sa.ColumnElement[bool]:
    """Say whether a source was judged by others than these rules: `add_licences` in SQL."""
    of_origin = sa.case(rules, value=Repository.origin)
    licences = (sa.func.coalesce(text, "") for text in (Repository.api_licence, stated_licence))
    return Repository.judged_by.is_distinct_from(sa.func.concat_ws(":", of_origin, *licences))
