"""Scores of stored files by a newer scorer: the old ones a batch at a time, each with its queue rows in one go."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from schema.backlog import AGE_POINT_S, lock_ingest
from schema.caps import cap_items
from schema.tables import ProcessedFile


@dataclass(frozen=True, slots=True)
class Stale:
    """A file whose score an older scorer gave."""

    id: int
    file_path: str
    language: str
    content: str


@dataclass(frozen=True, slots=True)
class Rescored:
    """A file's new score (0 to 100) and how it came about."""

    id: int
    score: float
    detail: dict[str, Any]


# What else the detail holds, of the licence and of what was redacted, stays.
_SAVE = sa.text(
    """
    UPDATE processed_files f
    SET quality_score = new.score, score_detail = f.score_detail || new.detail, scorer_version = :version
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS new (id bigint, score double precision, detail jsonb)
    WHERE f.id = new.id AND f.scorer_version < :version
    RETURNING f.id
    """
)
_SAVE_QUEUED = sa.text(
    f"""
    UPDATE training_queue q
    SET score = f.quality_score, num_chars = f.num_chars, language = f.language,
        rank = f.quality_score - CAST(extract(epoch FROM f.created_at) AS double precision) / {AGE_POINT_S}
    FROM processed_files f
    WHERE q.item_kind = 'file' AND q.item_id = f.id AND f.id = ANY(:ids)
    """  # noqa: S608 - a constant
)


def count_stale(conn: sa.Connection, version: int) -> int:
    """Count the files that have a content and an older scorer's score."""
    return conn.execute(sa.select(sa.func.count()).select_from(ProcessedFile).where(_is_stale(version))).scalar_one()


def fetch_stale(conn: sa.Connection, version: int, *, after: int, limit: int) -> list[Stale]:
    """Fetch the next such files by their ids, those behind `after`."""
    table = ProcessedFile
    # The content of a stale file is there.
    content = sa.type_coerce(table.content, sa.Text)
    files = sa.select(table.id, table.file_path, table.language, content).where(_is_stale(version))
    return [Stale(*row) for row in conn.execute(files.where(table.id > after).order_by(table.id).limit(limit))]


def save_scores(conn: sa.Connection, rows: Sequence[Rescored], version: int) -> int:
    """Store new scores, in the queues of all lines too; return how many another had not stored already.

    The ledger stays as it is: what a run has claimed it has claimed. Commit soon after, the ingest lock is held.
    """
    lock_ingest(conn)
    values = [{"id": row.id, "score": row.score, "detail": row.detail} for row in rows]
    ids = list(conn.execute(_SAVE, {"rows": json.dumps(values), "version": version}).scalars())
    update_queue(conn, ids)
    cap_items(conn, ids)
    return len(ids)


def update_queue(conn: sa.Connection, file_ids: Sequence[int]) -> None:
    """Bring the queue rows of files up to date with their scores; the caller holds the ingest lock."""
    conn.execute(_SAVE_QUEUED, {"ids": list(file_ids)})


def _is_stale(version: int) -> sa.ColumnElement[bool]:
    return sa.and_(ProcessedFile.scorer_version < version, ProcessedFile.content.is_not(None))
