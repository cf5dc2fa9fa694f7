"""Files that were judged again though they have not changed: their rows follow the new verdict (I10)."""

import json
from collections.abc import Collection, Sequence
from itertools import groupby
from operator import itemgetter

import sqlalchemy as sa

from schema.caps import cap_items
from schema.files import NewFile, RefusedFileRow, exclude_files, save_files
from schema.near_duplicates import NearRule
from schema.repositories import Claim
from schema.rescores import update_queue

# The present row of a path, if it is of the same bytes; those of a past version were superseded before.
_FIND_REFUSED = sa.text(
    """
    SELECT f.id, new.reason
    FROM processed_files f
    JOIN unnest(CAST(:paths AS text[]), CAST(:blob_oids AS text[]), CAST(:reasons AS text[])) AS new (path, oid, reason)
        ON f.file_path = new.path AND f.blob_oid = new.oid
    WHERE f.repository_id = :repository_id AND coalesce(f.excluded_reason, '') NOT IN ('superseded', 'vanished')
    ORDER BY new.reason, f.id
    """
)
_UPDATE = sa.text(
    """
    UPDATE processed_files f
    SET language = new.language, quality_score = new.quality_score, score_detail = new.score_detail,
        scorer_version = new.scorer_version, licence = new.licence, content_sha256 = new.content_sha256,
        num_chars = new.num_chars, num_lines = new.num_lines
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new (
        file_path text, blob_oid text, language text, quality_score double precision, score_detail jsonb,
        scorer_version bigint, licence text, content_sha256 text, num_chars bigint, num_lines bigint
    )
    WHERE f.repository_id = :repository_id AND f.file_path = new.file_path AND f.blob_oid = new.blob_oid
        AND (f.scorer_version, f.quality_score, f.score_detail, f.content_sha256, f.language)
            IS DISTINCT FROM (new.scorer_version, new.quality_score, new.score_detail, new.content_sha256, new.language)
    RETURNING f.id
    """
)
# Another text of the same bytes (redacted by newer rules), and what an earlier verdict had taken out.
_FIND_OVERTURNED = sa.text(
    """
    SELECT f.id, f.file_path
    FROM processed_files f
    JOIN unnest(CAST(:paths AS text[]), CAST(:blob_oids AS text[]), CAST(:hashes AS text[])) AS new (path, oid, hash)
        ON f.file_path = new.path AND f.blob_oid = new.oid
    WHERE f.repository_id = :repository_id AND coalesce(f.excluded_reason, '') NOT IN ('superseded', 'vanished')
        AND (f.content_sha256 <> new.hash OR f.excluded_reason = ANY(:verdicts))
    """
)
_COLUMNS = ("file_path", "blob_oid", "language", "quality_score", "score_detail", "scorer_version", "licence")
_MEASURES = ("content_sha256", "num_chars", "num_lines")


def judge_again(
    conn: sa.Connection,
    claim: Claim,
    files: Sequence[NewFile],
    refused: Sequence[RefusedFileRow],
    *,
    near: NearRule,
    verdicts: Collection[str],
) -> None:
    """Bring the rows of these files up to date where they are of the same bytes: call it after `save_files`.

    What is refused now leaves with that reason, what was trained on is marked by it; what `verdicts` had taken out and
    is accepted now comes back; scores, licences and texts become the new ones.
    """
    _exclude(conn, claim.repository_id, refused)
    if not files:
        return
    values = {
        "repository_id": claim.repository_id,
        "paths": [file.file_path for file in files],
        "blob_oids": [file.blob_oid for file in files],
        "hashes": [file.content_sha256 for file in files],
        "verdicts": sorted(verdicts),
    }
    overturned = {path: file_id for file_id, path in conn.execute(_FIND_OVERTURNED, values)}
    if overturned:
        exclude_files(conn, list(overturned.values()), "superseded")
    rows = json.dumps([{name: getattr(file, name) for name in (*_COLUMNS, *_MEASURES)} for file in files])
    changed = list(conn.execute(_UPDATE, {"repository_id": claim.repository_id, "rows": rows}).scalars())
    if overturned:
        save_files(conn, claim, [file for file in files if file.file_path in overturned], near=near)
    update_queue(conn, changed)
    cap_items(conn, changed)


def _exclude(conn: sa.Connection, repository_id: int, refused: Sequence[RefusedFileRow]) -> None:
    values = {
        "repository_id": repository_id,
        "paths": [row.file_path.replace("\0", "") for row in refused],
        "blob_oids": [row.blob_oid for row in refused],
        "reasons": [row.reason for row in refused],
    }
    leaving = [tuple(row) for row in conn.execute(_FIND_REFUSED, values)] if refused else []
    for reason, rows in groupby(leaving, key=itemgetter(1)):
        exclude_files(conn, [file_id for file_id, _ in rows], reason)
