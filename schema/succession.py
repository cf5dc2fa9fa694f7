"""Who takes the place of a file that leaves, or that gives way to a better copy (I6)."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from schema.bands import add_bands, drop_bands

# A row that a claim holds is about to be claimed: its file does not give way, and nobody waits.
_LOCK_PENDING = sa.text(
    """
    WITH locked AS (
        SELECT item_id FROM training_queue
        WHERE item_kind = 'file' AND item_id = ANY(:ids) AND run_id IS NULL AND quarantined_reason IS NULL
        FOR UPDATE SKIP LOCKED
    )
    SELECT wanted.id FROM unnest(CAST(:ids AS bigint[])) AS wanted (id)
    WHERE (SELECT count(*) FROM locked WHERE item_id = wanted.id)
        = (SELECT count(*) FROM training_queue WHERE item_kind = 'file' AND item_id = wanted.id)
    """
)
# The copies of the one that gives way follow it, so that one of them may be an heir of its successor.
_GIVE_WAY = sa.text(
    """
    UPDATE processed_files f
    SET near_dup_of = :successor, near_dup_similarity = CASE WHEN f.id = :id THEN :similarity END,
        excluded_reason = 'near_duplicate'
    WHERE f.id = :id
        OR (f.near_dup_of = :id AND f.excluded_reason IN ('duplicate', 'near_duplicate'))
    RETURNING f.id
    """
)

_FIND_LEFT_BEHIND = sa.text(
    """
    SELECT DISTINCT d.near_dup_of FROM processed_files d
    WHERE d.near_dup_of = ANY(:gone) AND d.excluded_reason IN ('duplicate', 'near_duplicate')
    ORDER BY d.near_dup_of
    """
)
# An exact copy is near to what the one that leaves was near to, that is to nothing kept; another copy must share no
# band with anything. Where a run has consumed the one that leaves, the content was trained on: its copies stay copies.
_PROMOTE_ONE = sa.text(
    """
    WITH heir AS (
        SELECT d.id FROM processed_files d
        WHERE d.near_dup_of = :gone AND d.content IS NOT NULL
            AND NOT EXISTS (
                SELECT FROM training_queue q
                WHERE q.item_kind = 'file' AND q.item_id = d.near_dup_of AND q.run_id IS NOT NULL
            )
            AND (
                d.excluded_reason = 'duplicate'
                OR (
                    d.excluded_reason = 'near_duplicate'
                    AND NOT EXISTS (
                        SELECT FROM unnest(d.bands) WITH ORDINALITY AS own (hash, band)
                        JOIN near_dup_bands b ON b.band = own.band AND b.hash = own.hash
                    )
                )
            )
        ORDER BY d.excluded_reason = 'duplicate' DESC, d.quality_score DESC, d.id LIMIT 1
    )
    UPDATE processed_files f
    SET near_dup_of = nullif(heir.id, f.id), near_dup_similarity = NULL,
        placed_in = (SELECT coalesce(max(placed_in), 0) + 1 FROM processed_files),
        excluded_reason = CASE
            WHEN f.id = heir.id THEN NULL
            WHEN (SELECT d.excluded_reason FROM processed_files d WHERE d.id = heir.id) = 'duplicate'
                THEN f.excluded_reason
            ELSE 'near_duplicate'
        END
    FROM heir
    WHERE f.near_dup_of = :gone AND f.excluded_reason IN ('duplicate', 'near_duplicate')
    RETURNING f.id
    """
)


def lock_pending(conn: sa.Connection, file_ids: Collection[int]) -> set[int]:
    """Lock the queue rows of these files; return those that are pending in every line, and stay so."""
    return set(conn.execute(_LOCK_PENDING, {"ids": sorted(file_ids)}).scalars()) if file_ids else set()


def give_way(conn: sa.Connection, file_id: int, successor: int, similarity: float) -> list[int]:
    """Make a kept file, and its copies, near-duplicates of its successor; return the ids that changed."""
    values = {"id": file_id, "successor": successor, "similarity": similarity}
    changed = list(conn.execute(_GIVE_WAY, values).scalars())
    drop_bands(conn, [file_id])
    return changed


def promote_duplicates(conn: sa.Connection, gone: Sequence[int]) -> list[int]:
    """Put the best copy in the place of each file that has gone; return the ids that changed."""
    drop_bands(conn, gone)
    changed: list[int] = []
    for left_by in conn.execute(_FIND_LEFT_BEHIND, {"gone": list(gone)}).scalars().all():
        followers = list(conn.execute(_PROMOTE_ONE, {"gone": left_by}).scalars())
        add_bands(conn, followers)
        changed += followers
    return changed
