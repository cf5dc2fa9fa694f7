"""Retention: the contents of excluded files are dropped after a while; the rows, and so the accounting, stay (I1)."""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from schema.backlog import lock_ingest

# Ids that one transaction looks at; placing files waits for it.
_BATCH_IDS = 5_000


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was dropped of the files with ids up to `last_id` of `max_id`: contents, and their characters."""

    last_id: int
    max_id: int
    num_contents: int
    num_chars: int


# Nobody but us sees all the ways in which a file is excluded: its time begins when retention first sees it so.
_MARK = sa.text(
    """
    UPDATE processed_files SET excluded_seen_at = CASE WHEN excluded_reason IS NOT NULL THEN now() END
    WHERE id > :after AND id <= :until AND (excluded_reason IS NULL) = (excluded_seen_at IS NOT NULL)
    """
)
# A run that is open reads its members again after a restart, replayed ones too. What may be replayed or held out later
# is not excluded.
_IS_DUE = """
    content IS NOT NULL AND excluded_reason IS NOT NULL AND excluded_seen_at <= now() - make_interval(days => :days)
    AND NOT EXISTS (
        SELECT FROM training_run_items i JOIN training_runs r ON r.id = i.run_id
        WHERE i.item_kind = 'file' AND i.item_id = processed_files.id
            AND r.state IN ('claimed', 'training', 'evaluating')
    )
"""
# ruff: noqa: S608 - constants
_DROP = sa.text(
    f"""
    WITH dropped AS (
        UPDATE processed_files SET content = NULL WHERE id > :after AND id <= :until AND {_IS_DUE} RETURNING num_chars
    )
    SELECT count(*), CAST(coalesce(sum(num_chars), 0) AS bigint) FROM dropped
    """
)
_COUNT = sa.text(
    f"""
    SELECT excluded_reason, count(*), CAST(sum(num_chars) AS bigint) FROM processed_files WHERE {_IS_DUE}
    GROUP BY excluded_reason ORDER BY excluded_reason
    """
)
_FETCH_MAX = sa.text("SELECT coalesce(max(id), 0) FROM processed_files")


def prune_contents(engine: sa.Engine, *, days: int) -> Iterator[Pruned]:
    """Drop the contents of files that have been excluded for so many days; yield after each batch, committed.

    It may be broken off anywhere and begun again.
    """
    with engine.begin() as conn:
        max_id = conn.execute(_FETCH_MAX).scalar_one()
    for after in range(0, max_id, _BATCH_IDS):
        until = min(max_id, after + _BATCH_IDS)
        with engine.begin() as conn:
            lock_ingest(conn)
            conn.execute(_MARK, {"after": after, "until": until})
            num_contents, num_chars = conn.execute(_DROP, {"after": after, "until": until, "days": days}).one()
        yield Pruned(until, max_id, num_contents, num_chars)


def count_prunable(conn: sa.Connection, *, days: int) -> dict[str, tuple[int, int]]:
    """Count the contents, and their characters, that would be dropped now, by reason of exclusion."""
    return {reason: (num, num_chars) for reason, num, num_chars in conn.execute(_COUNT, {"days": days})}
