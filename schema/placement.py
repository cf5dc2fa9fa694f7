"""Putting a staged batch into its place (I6): set-based SQL around the decision, which copies.py makes."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from schema.bands import add_bands
from schema.copies import Choice, Newcomer, Placement
from schema.near_duplicates import Neighbourhood
from schema.succession import give_way, lock_pending

MAKE_STAGE = sa.text(
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS staged_files (
        ordinal bigint, file_path text, commit text, blob_oid text, language text, content text, content_sha256 text,
        num_chars bigint, num_lines bigint, quality_score double precision, score_detail jsonb, scorer_version bigint,
        licence text, unit text, split text, owner text, bands bigint[], bands_version bigint
    ) ON COMMIT DROP
    """
)

# A path that is accepted now is not refused any more.
FORGET_REFUSALS = sa.text(
    """
    DELETE FROM refused_files r USING staged_files s
    WHERE r.repository_id = :repository_id AND r.file_path = s.file_path
    """
)

SAVE_REFUSALS = sa.text(
    """
    INSERT INTO refused_files (repository_id, file_path, blob_oid, num_bytes, reason, detail)
    SELECT :repository_id, * FROM unnest(
        CAST(:file_path AS text[]), CAST(:blob_oid AS text[]), CAST(:num_bytes AS bigint[]), CAST(:reason AS text[]),
        CAST(:detail AS text[])
    )
    ON CONFLICT (repository_id, file_path) DO UPDATE
        SET blob_oid = excluded.blob_oid, num_bytes = excluded.num_bytes, reason = excluded.reason,
            detail = excluded.detail, created_at = excluded.created_at
    """
)

_SUPERSEDE = sa.text(
    """
    UPDATE processed_files f SET excluded_reason = 'superseded'
    FROM (
        SELECT file_path, blob_oid FROM staged_files
        UNION ALL
        SELECT * FROM unnest(CAST(:paths AS text[]), CAST(:blob_oids AS text[]))
    ) AS present (file_path, blob_oid)
    WHERE f.repository_id = :repository_id AND f.file_path = present.file_path AND f.blob_oid <> present.blob_oid
        AND coalesce(f.excluded_reason, '') NOT IN ('superseded', 'vanished')
    RETURNING f.id
    """
)

# A path keeps the unit and the split of its past. A past version of another path is no twin, except where it was
# trained on and the newcomer is to be held out. A file that is back at an earlier version gets that row back.
_FIND_NEWCOMERS = sa.text(
    """
    SELECT s.ordinal, s.file_path, s.content_sha256, s.quality_score AS score, coalesce(past.unit, s.unit) AS unit,
        coalesce(past.split, s.split) AS split, twin.id AS twin_id, twin.split AS twin_split
    FROM staged_files s
    LEFT JOIN processed_files same
        ON same.repository_id = :repository_id AND same.file_path = s.file_path AND same.blob_oid = s.blob_oid
    LEFT JOIN LATERAL (
        SELECT p.unit, p.split FROM processed_files p
        WHERE p.repository_id = :repository_id AND p.file_path = s.file_path
        ORDER BY p.id LIMIT 1
    ) past ON true
    LEFT JOIN LATERAL (
        SELECT t.id, t.split FROM processed_files t
        WHERE t.content_sha256 = s.content_sha256
            AND NOT (t.repository_id = :repository_id AND t.file_path = s.file_path)
            AND (
                t.excluded_reason IS NULL
                OR (
                    t.split = 'train' AND coalesce(past.split, s.split) <> 'train'
                    AND EXISTS (
                        SELECT FROM training_queue q
                        WHERE q.item_kind = 'file' AND q.item_id = t.id AND q.run_id IS NOT NULL
                    )
                )
            )
        ORDER BY t.excluded_reason IS NOT NULL, t.id LIMIT 1
    ) twin ON true
    WHERE same.id IS NULL OR same.excluded_reason IN ('superseded', 'vanished')
    ORDER BY s.ordinal
    """
)

_INSERT = sa.text(
    """
    INSERT INTO processed_files AS f (
        repository_id, file_path, commit, blob_oid, language, content, content_sha256, num_chars, num_lines,
        quality_score, score_detail, scorer_version, licence, owner, bands, bands_version,
        unit, split, excluded_reason, near_dup_of, near_dup_similarity,
        placed_in
    )
    SELECT :repository_id, s.file_path, s.commit, s.blob_oid, s.language, s.content, s.content_sha256, s.num_chars,
        s.num_lines, s.quality_score, s.score_detail, s.scorer_version, s.licence, s.owner, s.bands, s.bands_version,
        p.unit, p.split, p.reason, p.of_id, p.similarity,
        (SELECT coalesce(max(placed_in), 0) + 1 FROM processed_files)
    FROM unnest(
        CAST(:ordinals AS bigint[]), CAST(:units AS text[]), CAST(:splits AS text[]), CAST(:reasons AS text[]),
        CAST(:of_ids AS bigint[]), CAST(:similarities AS double precision[])
    ) AS p (ordinal, unit, split, reason, of_id, similarity)
    JOIN staged_files s USING (ordinal)
    ORDER BY s.ordinal
    ON CONFLICT (repository_id, file_path, blob_oid) DO UPDATE
        SET commit = excluded.commit, language = excluded.language, content = excluded.content,
            content_sha256 = excluded.content_sha256, num_chars = excluded.num_chars, num_lines = excluded.num_lines,
            quality_score = excluded.quality_score, score_detail = excluded.score_detail,
            scorer_version = excluded.scorer_version, licence = excluded.licence, bands = excluded.bands,
            bands_version = excluded.bands_version, excluded_reason = excluded.excluded_reason,
            near_dup_of = excluded.near_dup_of, near_dup_similarity = excluded.near_dup_similarity,
            placed_in = excluded.placed_in
    RETURNING f.id, f.file_path
    """
)


def supersede(conn: sa.Connection, repository_id: int, refused: Mapping[str, str]) -> list[int]:
    """Retire the earlier versions of the staged paths and of the refused ones (path: object id); return their ids."""
    values = {"repository_id": repository_id, "paths": list(refused), "blob_oids": list(refused.values())}
    return list(conn.execute(_SUPERSEDE, values).scalars())


def prepare(conn: sa.Connection, repository_id: int, neighbourhood: Neighbourhood) -> None:
    """Decide without consequence and without the lock: the neighbourhood remembers what was measured."""
    if neighbourhood.look():
        Choice(_find_newcomers(conn, repository_id), neighbourhood, ())


def place(
    conn: sa.Connection, repository_id: int, neighbourhood: Neighbourhood
) -> tuple[list[tuple[int, str | None]], list[int]]:
    """Store the newcomers; return each one's id and reason of exclusion, and the ids of those that gave way."""
    neighbourhood.look_again()
    choice = _choose(conn, _find_newcomers(conn, repository_id), neighbourhood)
    placements = choice.placements
    # What is kept goes first: the others refer to it.
    ids: dict[int, int] = {}
    for is_kept in (True, False):
        ids |= _insert(conn, repository_id, [one for one in placements if (one.reason is None) == is_kept], ids)
    beaten = choice.beaten.items()
    takers = {file_id: (ids[choice.follow(ordinal)], similarity) for file_id, (ordinal, similarity) in beaten}
    changed = give_way(conn, takers)
    add_bands(conn, list(ids.values()))
    return [(ids[one.newcomer.ordinal], one.reason) for one in placements], changed


def _find_newcomers(conn: sa.Connection, repository_id: int) -> list[Newcomer]:
    """Return what the stage holds and the table does not, or has as a past version."""
    rows = conn.execute(_FIND_NEWCOMERS, {"repository_id": repository_id}).mappings()
    return [Newcomer(**row) for row in rows]


def _choose(conn: sa.Connection, newcomers: Sequence[Newcomer], neighbourhood: Neighbourhood) -> Choice:
    """Decide until every stored file that is to give way is pending, and locked so that no run claims it."""
    pinned: set[int] = set()
    while True:
        choice = Choice(newcomers, neighbourhood, pinned)
        taken = set(choice.beaten) - lock_pending(conn, choice.beaten)
        if not taken:
            return choice
        pinned |= taken


def _insert(
    conn: sa.Connection, repository_id: int, placements: Sequence[Placement], ids: Mapping[int, int]
) -> dict[int, int]:
    """Store these newcomers; return their ids by ordinal. `ids` has those that they are copies of."""
    if not placements:
        return {}
    values = {
        "repository_id": repository_id,
        "ordinals": [one.newcomer.ordinal for one in placements],
        "units": [one.newcomer.unit for one in placements],
        "splits": [one.newcomer.split for one in placements],
        "reasons": [one.reason for one in placements],
        "of_ids": [one.of_id if one.of_ordinal is None else ids[one.of_ordinal] for one in placements],
        "similarities": [one.similarity for one in placements],
    }
    stored = {path: file_id for file_id, path in conn.execute(_INSERT, values)}
    return {one.newcomer.ordinal: stored[one.newcomer.file_path] for one in placements}
