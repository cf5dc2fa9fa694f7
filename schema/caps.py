"""The owner cap: of one owner's code that the crawler found, a line consumes at most so many items; the best ones.

Some hundred poisoned files are enough to plant something in a model of any size; fewer were not (arXiv 2510.07192). The
cap is kept where queue rows are written, under the ingest lock: what is claimed counts, and what a claim holds at this
moment counts as claimed. So the sum of consumed and pending rows never exceeds the cap, whatever is claimed meanwhile.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from schema.backlog import lock_ingest

REASON = "owner_cap"

# What waits behind the cap comes back, best first, when something before it leaves. Owner by owner inside of the
# statement: a join over all of them is planned by guesses on tables that were just filled.
_CAP = """
    WITH owners AS MATERIALIZED ({owners})
    UPDATE training_queue q SET excluded_reason = CASE WHEN r.is_kept THEN NULL ELSE 'owner_cap' END
    FROM (
        SELECT o.line_id, own.*
        FROM owners o JOIN lines l ON l.id = o.line_id CROSS JOIN LATERAL (
            WITH pending AS MATERIALIZED (
                SELECT item_kind, item_id, score FROM training_queue
                WHERE line_id = o.line_id AND capped_owner = o.owner AND split = 'train'
                    AND run_id IS NULL AND excluded_reason IS NULL AND quarantined_reason IS NULL
                FOR UPDATE SKIP LOCKED
            ),
            reserve AS (
                SELECT w.item_kind, w.item_id, w.score
                FROM training_queue w JOIN processed_files f ON w.item_kind = 'file' AND f.id = w.item_id
                WHERE w.line_id = o.line_id AND w.capped_owner = o.owner AND w.excluded_reason = 'owner_cap'
                    AND f.excluded_reason IS NULL AND f.content IS NOT NULL
                ORDER BY w.score DESC, w.item_id LIMIT l.max_owner_rows
            ),
            room AS (
                SELECT l.max_owner_rows - count(*) + (SELECT count(*) FROM pending) AS num
                FROM training_queue
                WHERE line_id = o.line_id AND capped_owner = o.owner AND split = 'train'
                    AND (run_id IS NOT NULL OR excluded_reason IS NULL)
            )
            SELECT item_kind, item_id,
                row_number() OVER (ORDER BY score DESC, item_id) <= (SELECT num FROM room) AS is_kept
            FROM (SELECT * FROM pending UNION ALL SELECT * FROM reserve) AS both_kinds
        ) own
    ) r
    WHERE q.line_id = r.line_id AND q.item_kind = r.item_kind AND q.item_id = r.item_id
        AND (q.excluded_reason IS NULL) <> r.is_kept
"""
_CAP_OWNERS = sa.text(
    _CAP.format(
        owners="""
        SELECT DISTINCT line_id, capped_owner AS owner FROM training_queue
        WHERE item_kind = 'file' AND item_id = ANY(:ids) AND capped_owner IS NOT NULL AND split = 'train'
        """
    )
)
# Most owners have less than that: nothing is to be done for them.
_CAP_LINE = sa.text(
    _CAP.format(
        owners="""
        SELECT line_id, capped_owner AS owner FROM training_queue
        WHERE line_id = :line_id AND capped_owner IS NOT NULL AND split = 'train'
        GROUP BY line_id, capped_owner
        HAVING count(*) > (SELECT max_owner_rows FROM lines WHERE id = :line_id)
            OR bool_or(excluded_reason = 'owner_cap')
        """
    )
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
    conn.execute(_CAP_OWNERS, {"ids": list(file_ids)})


def cap_line(conn: sa.Connection, line_id: int) -> None:
    """Bring all owners under the cap of one line. The caller holds the ingest lock."""
    conn.execute(_CAP_LINE, {"line_id": line_id})


def exempt_repository(conn: sa.Connection, repository_id: int) -> None:
    """Count a source's files for no owner any more: the operator has named it."""
    values = {"repository_id": repository_id}
    if conn.execute(_IS_CAPPED, values).scalar_one():
        lock_ingest(conn)
        conn.execute(_EXEMPT, values)
