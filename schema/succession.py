"""Who takes the place of a file that leaves, or that gives way to a better copy (I6)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

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
    WITH beaten AS (
        SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:successors AS bigint[]),
            CAST(:similarities AS double precision[])) AS b (id, successor, similarity)
    )
    UPDATE processed_files f
    SET near_dup_of = own.successor, near_dup_similarity = own.similarity, excluded_reason = 'near_duplicate'
    FROM (
        SELECT id, successor, similarity FROM beaten
        UNION ALL
        SELECT d.id, b.successor, NULL FROM beaten b JOIN processed_files d ON d.near_dup_of = b.id
        WHERE d.excluded_reason IN ('duplicate', 'near_duplicate')
    ) own
    WHERE f.id = own.id
    RETURNING f.id
    """
)

# An exact copy is near to what the one that leaves was near to, that is to nothing kept; another copy must share no
# band with anything. Where a run has consumed the one that leaves, the content was trained on: its copies stay copies.
_FIND_HEIRS = sa.text(
    """
    SELECT DISTINCT ON (d.near_dup_of) d.near_dup_of AS gone, d.id, d.excluded_reason = 'duplicate' AS is_exact,
        d.bands
    FROM processed_files d
    WHERE d.near_dup_of = ANY(:gone) AND d.content IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM training_queue q
            WHERE q.item_kind = 'file' AND q.item_id = d.near_dup_of AND q.run_id IS NOT NULL
        )
        AND (
            d.excluded_reason = 'duplicate'
            OR (
                d.excluded_reason = 'near_duplicate'
                AND NOT EXISTS (SELECT FROM unnest(d.bands) AS own (hash) JOIN near_dup_bands b USING (hash))
            )
        )
    ORDER BY d.near_dup_of, is_exact DESC, d.quality_score DESC, d.id
    """
)
_INHERIT = sa.text(
    """
    UPDATE processed_files f
    SET near_dup_of = nullif(heir.id, f.id), near_dup_similarity = NULL,
        placed_in = (SELECT coalesce(max(placed_in), 0) + 1 FROM processed_files),
        excluded_reason = CASE
            WHEN f.id = heir.id THEN NULL
            WHEN heir.is_exact THEN f.excluded_reason
            ELSE 'near_duplicate'
        END
    FROM unnest(CAST(:gone AS bigint[]), CAST(:ids AS bigint[]), CAST(:exact AS boolean[])) AS heir (gone, id, is_exact)
    WHERE f.near_dup_of = heir.gone AND f.excluded_reason IN ('duplicate', 'near_duplicate')
    RETURNING f.id
    """
)


def lock_pending(conn: sa.Connection, file_ids: Collection[int]) -> set[int]:
    """Lock the queue rows of these files; return those that are pending in every line, and stay so."""
    return set(conn.execute(_LOCK_PENDING, {"ids": sorted(file_ids)}).scalars()) if file_ids else set()


def give_way(conn: sa.Connection, takers: Mapping[int, tuple[int, float]]) -> list[int]:
    """Make kept files, and their copies, near-duplicates of their successors; return the ids that changed.

    `takers` maps each to its successor and the similarity of the two.
    """
    if not takers:
        return []
    values = {
        "ids": list(takers),
        "successors": [successor for successor, _ in takers.values()],
        "similarities": [similarity for _, similarity in takers.values()],
    }
    changed = list(conn.execute(_GIVE_WAY, values).scalars())
    drop_bands(conn, list(takers))
    return changed


def promote_duplicates(conn: sa.Connection, gone: Sequence[int]) -> list[int]:
    """Put the best copy in the place of each file that has gone; return the ids that changed."""
    drop_bands(conn, gone)
    changed: list[int] = []
    left = list(gone)
    while left and (heirs := conn.execute(_FIND_HEIRS, {"gone": left}).all()):
        chosen, left = _choose_heirs(heirs)
        values = {
            "gone": [heir.gone for heir in chosen],
            "ids": [heir.id for heir in chosen],
            "exact": [heir.is_exact for heir in chosen],
        }
        followers = list(conn.execute(_INHERIT, values).scalars())
        add_bands(conn, followers)
        changed += followers
    return changed


def _choose_heirs(heirs: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """Split into heirs that share no band with an earlier one, and the files whose heir does: for those look again."""
    taken: set[int] = set()
    chosen, postponed = [], []
    for heir in heirs:
        bands = set(heir.bands or ())
        if heir.is_exact or taken.isdisjoint(bands):
            taken |= bands
            chosen.append(heir)
        else:
            postponed.append(heir.gone)
    return chosen, postponed
