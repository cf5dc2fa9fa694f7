"""How long a line's new rows have waited, and how much a watched repository has changed since its last run."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from schema.backlog import FILE, Limits, is_pending
from schema.release_tags import fetch_new_tags
from schema.tables import ProcessedFile, QueueItem, Repository, TrainingRun

_MOST_RELEASES = 5


@dataclass(frozen=True, slots=True)
class Changes:
    """Of the watched repository that has most of each; `unknown`: names that no repository here has."""

    num_files: int
    num_commits: int
    unknown: list[str]
    releases: list[str]
    """Release tags first seen since then, as `source name`: the newest few."""


def fetch_oldest_fresh(conn: sa.Connection, line_id: int, limits: Limits, *, at_most: int) -> dt.datetime | None:
    """Fetch when the oldest of a line's fresh rows was stored. Exact where there are fewer than `at_most` of them."""
    fresh = sa.and_(is_pending(line_id, limits), QueueItem.waiting.is_(sa.false()), QueueItem.item_kind == FILE)
    # The order of count_pending, for the same index.
    in_order = sa.select(QueueItem.item_id).where(fresh).order_by(QueueItem.waiting.desc(), QueueItem.score.desc())
    some = in_order.limit(at_most).subquery()
    oldest = sa.select(sa.func.min(ProcessedFile.created_at)).join(some, some.c.item_id == ProcessedFile.id)
    return conn.execute(oldest).scalar_one()


def count_changes(conn: sa.Connection, line_id: int, watched: Sequence[str]) -> Changes:
    """Count the paths stored anew since the line's last run that did not fail, and the commits they were seen at.

    A file that was changed again before any run counts once, its commits each. The cost grows with the watched
    repositories alone.
    """
    ids, unknown = _find(conn, watched)
    last_run = sa.select(sa.func.max(TrainingRun.created_at)).where(
        TrainingRun.line_id == line_id, TrainingRun.kind != "base", TrainingRun.state != "failed"
    )
    since = sa.func.coalesce(last_run.scalar_subquery(), sa.text("'-infinity'::timestamptz"))
    num_files = sa.func.count(ProcessedFile.file_path.distinct())
    num_commits = sa.func.count(ProcessedFile.commit.distinct())
    stored = sa.and_(ProcessedFile.repository_id.in_(ids), ProcessedFile.created_at > since)
    counted = sa.select(num_files, num_commits).where(stored).group_by(ProcessedFile.repository_id)
    rows = conn.execute(counted).all()
    return Changes(
        num_files=max((row[0] for row in rows), default=0),
        num_commits=max((row[1] for row in rows), default=0),
        unknown=unknown,
        releases=fetch_new_tags(conn, ids, since, at_most=_MOST_RELEASES),
    )


def _find(conn: sa.Connection, watched: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the ids of these repositories, and the names that none has; capitals make no difference."""
    full_name = sa.func.lower(Repository.owner + "/" + Repository.name)
    names = {name.lower(): name for name in watched}
    asked = sa.or_(sa.func.lower(Repository.source).in_(names), full_name.in_(names))
    rows = conn.execute(sa.select(Repository.id, sa.func.lower(Repository.source), full_name).where(asked)).all()
    known = {name for row in rows for name in row[1:]}
    return [row[0] for row in rows], [name for lower, name in names.items() if lower not in known]
