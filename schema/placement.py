"""Which copy of a content is kept (I6): set-based SQL over the staged batch. The first placement wins."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

MAKE_STAGE = sa.text(
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS staged_files (
        ordinal bigint, file_path text, commit text, blob_oid text, language text, content text, content_sha256 text,
        num_chars bigint, num_lines bigint, quality_score double precision, score_detail jsonb, scorer_version bigint,
        licence text, unit text, split text, owner text
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

# Of a batch's copies of one content the first goes in first, and is there for the others to be compared with: hence two
# passes. A path keeps the unit and the split of its past. A past version of another path is no twin, except where it
# was trained on and the newcomer is to be held out. A file that is back at an earlier version gets that row back.
_PLACE = sa.text(
    """
    WITH fresh AS (
        SELECT s.ordinal, s.file_path, s.content_sha256,
            coalesce(past.unit, s.unit) AS unit, coalesce(past.split, s.split) AS split,
            row_number() OVER (PARTITION BY s.content_sha256 ORDER BY s.ordinal) AS nth
        FROM staged_files s
        LEFT JOIN processed_files same
            ON same.repository_id = :repository_id AND same.file_path = s.file_path AND same.blob_oid = s.blob_oid
        LEFT JOIN LATERAL (
            SELECT p.unit, p.split FROM processed_files p
            WHERE p.repository_id = :repository_id AND p.file_path = s.file_path
            ORDER BY p.id LIMIT 1
        ) past ON true
        WHERE same.id IS NULL OR same.excluded_reason IN ('superseded', 'vanished')
    )
    INSERT INTO processed_files AS f (
        repository_id, file_path, commit, blob_oid, language, content, content_sha256, num_chars, num_lines,
        quality_score, score_detail, scorer_version, licence, owner, unit, split, near_dup_of, excluded_reason
    )
    SELECT :repository_id, s.file_path, s.commit, s.blob_oid, s.language, s.content, s.content_sha256, s.num_chars,
        s.num_lines, s.quality_score, s.score_detail, s.scorer_version, s.licence, s.owner, fresh.unit, fresh.split,
        twin.id,
        CASE
            WHEN twin.id IS NULL THEN NULL
            WHEN twin.split = fresh.split THEN 'duplicate'
            WHEN twin.split = 'train' THEN 'near_trained'
            ELSE 'near_held_out'
        END
    FROM fresh JOIN staged_files s USING (ordinal)
    LEFT JOIN LATERAL (
        SELECT t.id, t.split FROM processed_files t
        WHERE t.content_sha256 = fresh.content_sha256
            AND NOT (t.repository_id = :repository_id AND t.file_path = fresh.file_path)
            AND (
                t.excluded_reason IS NULL
                OR (
                    t.excluded_reason IN ('superseded', 'vanished') AND t.split = 'train' AND fresh.split <> 'train'
                    AND EXISTS (
                        SELECT FROM training_queue q
                        WHERE q.item_kind = 'file' AND q.item_id = t.id AND q.run_id IS NOT NULL
                    )
                )
            )
        ORDER BY t.excluded_reason IS NOT NULL, t.id LIMIT 1
    ) twin ON true
    WHERE fresh.nth = 1 OR :others
    ORDER BY s.ordinal
    ON CONFLICT (repository_id, file_path, blob_oid) DO UPDATE
        SET commit = excluded.commit, content = excluded.content, near_dup_of = excluded.near_dup_of,
            excluded_reason = excluded.excluded_reason
    RETURNING f.id, f.excluded_reason
    """
)

# Where a run has consumed the one that leaves, the content was trained on: its copies stay duplicates.
_PROMOTE_DUPLICATES = sa.text(
    """
    WITH heirs AS (
        SELECT DISTINCT ON (d.near_dup_of) d.near_dup_of AS gone, d.id
        FROM processed_files d
        WHERE d.near_dup_of = ANY(:gone) AND d.excluded_reason = 'duplicate'
            AND NOT EXISTS (
                SELECT FROM training_queue q
                WHERE q.item_kind = 'file' AND q.item_id = d.near_dup_of AND q.run_id IS NOT NULL
            )
        ORDER BY d.near_dup_of, d.id
    )
    UPDATE processed_files f
    SET near_dup_of = nullif(heirs.id, f.id), excluded_reason = CASE WHEN f.id <> heirs.id THEN 'duplicate' END
    FROM heirs
    WHERE f.near_dup_of = heirs.gone AND f.excluded_reason = 'duplicate'
    RETURNING f.id
    """
)


def supersede(conn: sa.Connection, repository_id: int, refused: Mapping[str, str]) -> list[int]:
    """Retire the earlier versions of the staged paths and of the refused ones (path: object id); return their ids."""
    values = {"repository_id": repository_id, "paths": list(refused), "blob_oids": list(refused.values())}
    return list(conn.execute(_SUPERSEDE, values).scalars())


def place(conn: sa.Connection, repository_id: int) -> list[tuple[int, str | None]]:
    """Store what the stage holds and the table does not; return each one's id and the reason why it is excluded."""
    passes = [{"repository_id": repository_id, "others": others} for others in (False, True)]
    return [(row.id, row.excluded_reason) for values in passes for row in conn.execute(_PLACE, values)]


def promote_duplicates(conn: sa.Connection, gone: Sequence[int]) -> list[int]:
    """Put a duplicate in the place of each file that has gone; return the ids that changed."""
    return list(conn.execute(_PROMOTE_DUPLICATES, {"gone": list(gone)}).scalars())
