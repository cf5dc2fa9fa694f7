"""The owner cap: of one owner's code that the crawler found, a line consumes at most so many items; the best ones.

Some hundred poisoned files are enough to plant something in a model of any size; fewer were not (arXiv 2510.07192). The
cap is kept where queue rows are written, under the ingest lock: what is claimed counts, and what a claim holds at this
moment counts as claimed. So the sum of consumed and pending rows never exceeds the cap, whatever is claimed meanwhile.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from schema.backlog import lock_ingest

REASON = "owner_cap"

# What waits behind the cap comes back, best first, when something before it leaves.
_CAP = sa.text(
    """
    WITH pending AS MATERIALIZED (
        SELECT item_kind, item_id, score FROM training_queue
        WHERE line_id = :line_id AND capped_owner = :owner AND split = 'train'
            AND run_id IS NULL AND excluded_reason IS NULL AND quarantined_reason IS NULL
        FOR UPDATE SKIP LOCKED
    ),
    reserve AS (
        SELECT q.item_kind, q.item_id, q.score
        FROM training_queue q JOIN processed_files f ON q.item_kind = 'file' AND f.id = q.item_id
        WHERE q.line_id = :line_id AND q.capped_owner = :owner AND q.excluded_reason = 'owner_cap'
            AND f.excluded_reason IS NULL AND f.content IS NOT NULL
        ORDER BY q.score DESC, q.item_id LIMIT (SELECT max_owner_rows FROM lines WHERE id = :line_id)
    ),
    room AS (
        SELECT (SELECT max_owner_rows FROM lines WHERE id = :line_id) - count(*) + (SELECT count(*) FROM pending) AS num
        FROM training_queue
        WHERE line_id = :line_id AND capped_owner = :owner AND split = 'train'
            AND (run_id IS NOT NULL OR excluded_reason IS NULL)
    ),
    ranked AS (
        SELECT item_kind, item_id, row_number() OVER (ORDER BY score DESC, item_id) <= (SELECT num FROM room) AS is_kept
        FROM (SELECT * FROM pending UNION ALL SELECT * FROM reserve) AS both_kinds
    )
    UPDATE training_queue q SET excluded_reason = CASE WHEN r.is_kept THEN NULL ELSE 'owner_cap' END
    FROM ranked r
    WHERE q.line_id = :line_id AND q.item_kind = r.item_kind AND q.item_id = r.item_id
        AND (q.excluded_reason IS NULL) <> r.is_kept
    """
)
_FIND_OWNERS = sa.text(
    """
    SELECT DISTINCT line_id, capped_owner FROM training_queue
    WHERE item_kind = 'file' AND item_id = ANY(:ids) AND capped_owner IS NOT NULL AND split = 'train'
    ORDER BY line_id, capped_owner
    """
)
# Most owners have less than that: nothing is to be done for them.
_FIND_OWNERS_OF_LINE = sa.text(
    """
    SELECT line_id, capped_owner FROM training_queue
    WHERE line_id = :line_id AND capped_owner IS NOT NULL AND split = 'train'
    GROUP BY line_id, capped_owner
    HAVING count(*) > (SELECT max_owner_rows FROM lines WHERE id = :line_id)
        OR bool_or(excluded_reason = 'owner_cap')
    """
)
_EXEMPT = sa.text(
    """
    UPDATE training_queue q
    SET capped_owner = NULL, excluded_reason = nullif(q.excluded_reason, 'owner_cap')
    FROM processed_files f
    WHERE f.repository_id = :repository_id AND q.item_kind = 'file' AND q.item_id = f.id AND q.capped_owner IS NOT NULL
    """
)
_IS_CAPPED = sa.text(
    """
    SELECT EXISTS (
        SELECT FROM processed_files f JOIN training_queue q ON q.item_kind = 'file' AND q.item_id = f.id
        WHERE f.repository_id = :repository_id AND q.capped_owner IS NOT NULL
    )
    """
)


def cap_items(conn: sa.Connection, file_ids: Sequence[int]) -> None:
    """Bring the owners of these files under the cap of every line. The caller holds the ingest lock."""
    _cap(conn, conn.execute(_FIND_OWNERS, {"ids": list(file_ids)}))


def cap_line(conn: sa.Connection, line_id: int) -> None:
    """Bring all owners under the cap of one line. The caller holds the ingest lock."""
    _cap(conn, conn.execute(_FIND_OWNERS_OF_LINE, {"line_id": line_id}))


def exempt_repository(conn: sa.Connection, repository_id: int) -> None:
    """Count a source's files for no owner any more: the operator has named it."""
    values = {"repository_id": repository_id}
    if conn.execute(_IS_CAPPED, values).scalar_one():
        lock_ingest(conn)
        conn.execute(_EXEMPT, values)


def _cap(conn: sa.Connection, owners: sa.CursorResult[Any]) -> None:
    for row in owners.all():
        conn.execute(_CAP, {"line_id": row.line_id, "owner": row.capped_owner})
