"""The table near_dup_bands: the bands of the files that newcomers are compared with.

These are the kept ones, and those that a run has consumed and that left. The bands of every file are in its own row.
"""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from schema.backlog import lock_ingest

_IS_CONSUMED = """
    EXISTS (SELECT FROM training_queue q WHERE q.item_kind = 'file' AND q.item_id = f.id AND q.run_id IS NOT NULL)
"""
# In the order of the index, which is then written page by page. A file that came back may have its bands still.
_ADD_BANDS = sa.text(
    f"""
    WITH f AS MATERIALIZED (
        SELECT f.id, f.bands FROM processed_files f
        WHERE f.id = ANY(:ids) AND f.bands <> '{{}}' AND (f.excluded_reason IS NULL OR {_IS_CONSUMED})
            AND NOT EXISTS (SELECT FROM near_dup_bands b WHERE b.hash = f.bands[1] AND b.file_id = f.id)
    )
    INSERT INTO near_dup_bands (hash, file_id)
    SELECT DISTINCT unnest(f.bands) AS hash, f.id FROM f ORDER BY hash
    """  # noqa: S608 - a constant
)
_DROP_BANDS = """
    DELETE FROM near_dup_bands b
    USING processed_files f CROSS JOIN LATERAL unnest(f.bands) AS own (hash)
    WHERE f.id = ANY(:ids) AND b.file_id = f.id AND b.hash = own.hash
"""
_DROP_ALL = sa.text(_DROP_BANDS)
_DROP_UNUSED = sa.text(f"{_DROP_BANDS} AND NOT {_IS_CONSUMED}")
_FETCH_UNINDEXED = sa.text(
    """
    SELECT id, content FROM processed_files
    WHERE id > :after AND bands_version IS DISTINCT FROM :version AND content IS NOT NULL
    ORDER BY id LIMIT :limit
    """
)
# A placement that is under way must see these as new.
_SET_BANDS = sa.text(
    """
    UPDATE processed_files SET bands = CAST(:bands AS bigint[]), bands_version = :version,
        placed_in = (SELECT coalesce(max(placed_in), 0) + 1 FROM processed_files)
    WHERE id = :id
    """
)


def add_bands(conn: sa.Connection, file_ids: Sequence[int]) -> None:
    """Let newcomers be compared with these files, as far as they are kept or consumed."""
    conn.execute(_ADD_BANDS, {"ids": list(file_ids)})


def drop_bands(conn: sa.Connection, file_ids: Sequence[int]) -> None:
    """Compare no newcomer with these files any more, except with those that a run has consumed."""
    conn.execute(_DROP_UNUSED, {"ids": list(file_ids)})


def fetch_unindexed(conn: sa.Connection, *, after: int, version: int, limit: int) -> dict[int, str]:
    """Fetch the ids and texts of the next files, in the order of their ids, that have no bands of this version."""
    values = {"after": after, "version": version, "limit": limit}
    return {row.id: row.content for row in conn.execute(_FETCH_UNINDEXED, values)}


def save_bands(conn: sa.Connection, bands: Mapping[int, list[int]], *, version: int) -> None:
    """Give stored files new bands. What is kept stays kept: only newcomers are compared with them."""
    lock_ingest(conn)
    conn.execute(_DROP_ALL, {"ids": list(bands)})
    conn.execute(_SET_BANDS, [{"id": file_id, "bands": own, "version": version} for file_id, own in bands.items()])
    add_bands(conn, list(bands))
