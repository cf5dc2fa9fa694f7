"""What a line has still to train on: the rows of `training_queue`, and the one predicate that calls a row pending."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.database import INGEST_LOCK
from schema.tables import Line, ProcessedFile, QueueItem, Repository

# An item gains one point of rank on every newer one for each day that it waits.
AGE_POINT_S = 86_400
FILE = "file"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may take: an item's lowest score and length (characters), and the most characters and rows."""

    min_score: float
    min_chars: int
    max_chars_total: int | None
    max_rows: int


def is_eligible(limits: Limits) -> sa.ColumnElement[bool]:
    """Build the condition on an item itself; rows below it stay stored and queued."""
    return sa.and_(QueueItem.score >= limits.min_score, QueueItem.num_chars >= limits.min_chars)


def is_pending(line_id: int, limits: Limits) -> sa.ColumnElement[bool]:
    """Build the condition that count and claim share, so that the one never promises what the other cannot take."""
    return sa.and_(
        QueueItem.line_id == line_id,
        # ix_training_queue_pending's own predicate, word for word
        sa.text("run_id IS NULL AND split = 'train' AND excluded_reason IS NULL AND quarantined_reason IS NULL"),
        is_eligible(limits),
    )


def count_pending(
    conn: sa.Connection, line_id: int, limits: Limits, *, at_most: int, include_waiting: bool = False
) -> int:
    """Count a line's pending items up to `at_most`, at a cost that does not grow with the table."""
    pending = is_pending(line_id, limits)
    if not include_waiting:
        pending = sa.and_(pending, QueueItem.waiting.is_(sa.false()))
    # The order is that of ix_training_queue_ready: no other plan may look cheap, wherever the eligible rows lie.
    in_order = sa.select(QueueItem.score).where(pending).order_by(QueueItem.waiting.desc(), QueueItem.score.desc())
    some = in_order.limit(at_most).subquery()
    return conn.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()


def lock_ingest(conn: sa.Connection) -> None:
    """Take the lock under which files are placed, lines opened and rows given back, until the transaction ends.

    Whoever changes many queue rows that others may change holds it; only the claim does not: it skips what is locked.
    """
    conn.execute(sa.select(sa.func.pg_advisory_xact_lock(INGEST_LOCK)))


def enqueue_files(conn: sa.Connection, *, file_ids: Sequence[int] | None = None, line_id: int | None = None) -> None:
    """Write the queue rows of these files for every line, or of every file for one line."""
    born = sa.func.extract("epoch", ProcessedFile.created_at)
    rows = sa.select(
        Line.id,
        sa.literal(FILE),
        ProcessedFile.id,
        ProcessedFile.quality_score,
        ProcessedFile.num_chars,
        ProcessedFile.language,
        ProcessedFile.owner,
        ProcessedFile.unit,
        ProcessedFile.split,
        ProcessedFile.quality_score - sa.cast(born, sa.Double) / AGE_POINT_S,
        ProcessedFile.excluded_reason,
        sa.case((Repository.origin == "crawler", ProcessedFile.owner)),
    ).join_from(ProcessedFile, Line, sa.true())
    rows = rows.join(Repository, Repository.id == ProcessedFile.repository_id)
    if file_ids is not None:
        rows = rows.where(ProcessedFile.id == sa.any_(sa.literal(list(file_ids), sa.ARRAY(sa.BigInteger))))
    if line_id is not None:
        rows = rows.where(Line.id == line_id)
    new = insert(QueueItem).from_select(
        [
            *("line_id", "item_kind", "item_id", "score", "num_chars", "language", "owner", "unit", "split"),
            *("rank", "excluded_reason", "capped_owner"),
        ],
        rows,
    )
    # A file that came back to an earlier version has its rows already, by the judgement of then.
    renewed = {name: new.excluded[name] for name in ("score", "num_chars", "language", "rank", "excluded_reason")}
    conn.execute(new.on_conflict_do_update(index_elements=["line_id", "item_kind", "item_id"], set_=renewed))


def exclude_items(conn: sa.Connection, file_ids: Sequence[int]) -> None:
    """Copy these files' excluded_reason, which may be none, to every line's queue."""
    ids = sa.literal(list(file_ids), sa.ARRAY(sa.BigInteger))
    conn.execute(
        sa.update(QueueItem)
        # Said of both sides: no plan may read either table whole.
        .where(
            QueueItem.item_kind == FILE,
            QueueItem.item_id == ProcessedFile.id,
            QueueItem.item_id == sa.any_(ids),
            ProcessedFile.id == sa.any_(ids),
        )
        .values(excluded_reason=ProcessedFile.excluded_reason)
    )
