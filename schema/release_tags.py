"""Release tags of repositories: those that a visit saw, and which of them are new."""

import datetime as dt
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.tables import ReleaseTag, Repository


def save_tags(conn: sa.Connection, repository_id: int, names: Collection[str]) -> None:
    """Keep exactly these release tags of a repository; those of its first reading are not new, whenever they were made.

    The row of the repository is locked, so that two visits of it cannot both be the first.
    """
    one = Repository.id == repository_id
    read_at = conn.execute(sa.select(Repository.tags_read_at).where(one).with_for_update()).scalar_one()
    conn.execute(sa.update(Repository).where(one).values(tags_read_at=sa.func.now()))
    gone = sa.and_(ReleaseTag.repository_id == repository_id, ReleaseTag.name.not_in(names))
    conn.execute(sa.delete(ReleaseTag).where(gone))
    if names:
        seen_at = None if read_at is None else sa.func.now()
        new = insert(ReleaseTag).values([{"repository_id": repository_id, "name": name} for name in names])
        added = conn.execute(new.on_conflict_do_nothing().returning(ReleaseTag.name)).scalars().all()
        of_these = sa.and_(ReleaseTag.repository_id == repository_id, ReleaseTag.name.in_(added))
        conn.execute(sa.update(ReleaseTag).where(of_these).values(seen_at=seen_at))


def fetch_new_tags(
    conn: sa.Connection, repositories: Sequence[int], since: sa.ColumnElement[dt.datetime] | Any, *, at_most: int
) -> list[str]:
    """Fetch the newest release tags that were first seen after `since`, as `source name`."""
    new = (
        sa.select(Repository.source + " " + ReleaseTag.name)
        .select_from(ReleaseTag)
        .join(Repository, Repository.id == ReleaseTag.repository_id)
        .where(ReleaseTag.repository_id.in_(repositories), ReleaseTag.seen_at > since)
        .order_by(ReleaseTag.seen_at.desc(), ReleaseTag.name.desc())
        .limit(at_most)
    )
    return list(conn.execute(new).scalars())
