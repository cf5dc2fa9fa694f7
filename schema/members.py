"""Items with their contents, as a run or an evaluation reads them, and how many there are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from schema.backlog import FILE, Limits, is_eligible
from schema.tables import ProcessedFile, QueueItem, Repository, RunItem

_BATCH_ROWS = 200


@dataclass(frozen=True, slots=True)
class Member:
    """An item with its content, as a run or an evaluation reads it; `role` is the split's name for held-out ones."""

    ordinal: int
    item_kind: str
    item_id: int
    role: str
    content_sha256: str
    content: str | None
    language: str
    file_path: str
    unit: str
    split: str
    repository: str  # its source
    licence: str | None


def count_members(conn: sa.Connection, run_id: int) -> dict[str, int]:
    """Count a run's items by role."""
    by_role = sa.select(RunItem.role, sa.func.count()).where(RunItem.run_id == run_id).group_by(RunItem.role)
    return {role: num for role, num in conn.execute(by_role)}  # noqa: C416 - a Row is no pair to mypy


def stream_members(conn: sa.Connection, run_id: int) -> Iterator[Member]:
    """Yield a run's items with their contents in ordinal order, through a cursor on the server."""
    item = (RunItem.ordinal, RunItem.item_kind, RunItem.item_id, RunItem.role, RunItem.content_sha256)
    joined = sa.and_(ProcessedFile.id == RunItem.item_id, RunItem.item_kind == FILE)
    members = _with_contents(item).join_from(RunItem, ProcessedFile, joined).where(RunItem.run_id == run_id)
    return _stream(conn, members.join(Repository).order_by(RunItem.ordinal))


def fetch_held_out(
    conn: sa.Connection,
    line_id: int,
    split: str,
    *,
    limits: Limits,
    max_chars: int | None = None,
    max_item_chars: int | None = None,
) -> Iterator[Member]:
    """Yield a line's held-out items of one split in order of their ids; ordinals count from 0.

    With `max_chars` those whose hashes come first, up to so many characters and at least one item: the same ones in
    every round, but for newer ones that come before them; a longer item counts as `max_item_chars`. Contents are read
    of the chosen alone.
    """
    by_hash = sa.func.sha256(sa.cast(sa.cast(QueueItem.item_id, sa.Text), sa.LargeBinary))
    counted = QueueItem.num_chars if max_item_chars is None else sa.func.least(QueueItem.num_chars, max_item_chars)
    chars_before = sa.func.sum(counted).over(order_by=(by_hash, QueueItem.item_id)) - counted
    chosen = (
        sa.select(QueueItem.item_kind, QueueItem.item_id, QueueItem.split, chars_before.label("chars_before"))
        .join(ProcessedFile, sa.and_(ProcessedFile.id == QueueItem.item_id, QueueItem.item_kind == FILE))
        .where(
            QueueItem.line_id == line_id,
            QueueItem.split == split,
            # ix_training_queue_held_out's own predicate
            sa.text("training_queue.split <> 'train' AND training_queue.excluded_reason IS NULL"),
            QueueItem.quarantined_reason.is_(None),
            ProcessedFile.content.is_not(None),
            is_eligible(limits),
        )
        .cte("chosen")
    )
    ordinal = sa.func.row_number().over(order_by=chosen.c.item_id) - 1
    item = (ordinal, chosen.c.item_kind, chosen.c.item_id, chosen.c.split, ProcessedFile.content_sha256)
    members = (
        _with_contents(item).join_from(chosen, ProcessedFile, ProcessedFile.id == chosen.c.item_id).join(Repository)
    )
    if max_chars is not None:
        members = members.where(sa.or_(chosen.c.chars_before < max_chars, chosen.c.chars_before == 0))
    return _stream(conn, members.order_by(chosen.c.item_id))


def stream_training_side(conn: sa.Connection, line_id: int, limits: Limits) -> Iterator[Member]:
    """Yield all that a line may learn, consumed before or not, in the order of a hash: `limits` say how good at least.

    Never what is held out, excluded (an owner's cap counts) or quarantined.
    """
    by_hash = sa.func.sha256(sa.cast(sa.cast(QueueItem.item_id, sa.Text), sa.LargeBinary))
    ordinal = sa.func.row_number().over(order_by=(by_hash, QueueItem.item_id)) - 1
    item = (ordinal, QueueItem.item_kind, QueueItem.item_id, sa.literal("base"), ProcessedFile.content_sha256)
    joined = sa.and_(ProcessedFile.id == QueueItem.item_id, QueueItem.item_kind == FILE)
    members = _with_contents(item).join_from(QueueItem, ProcessedFile, joined).join(Repository)
    learnable = (
        QueueItem.line_id == line_id,
        QueueItem.split == "train",
        QueueItem.excluded_reason.is_(None),
        QueueItem.quarantined_reason.is_(None),
        ProcessedFile.content.is_not(None),
        is_eligible(limits),
    )
    return _stream(conn, members.where(*learnable).order_by(by_hash, QueueItem.item_id))


def count_split(conn: sa.Connection, line_id: int, limits: Limits | None = None) -> dict[str, dict[str, int]]:
    """Count rows, units and characters of each split, consumed ones included, excluded and quarantined ones not.

    With `limits` only what is eligible, as `fetch_held_out` reads it.
    """
    eligible = sa.true() if limits is None else is_eligible(limits)
    counts = (
        sa.select(
            QueueItem.split,
            sa.func.count().label("rows"),
            sa.func.count(QueueItem.unit.distinct()).label("units"),
            sa.cast(sa.func.sum(QueueItem.num_chars), sa.BigInteger).label("chars"),
        )
        .where(
            QueueItem.line_id == line_id,
            QueueItem.excluded_reason.is_(None),
            QueueItem.quarantined_reason.is_(None),
            eligible,
        )
        .group_by(QueueItem.split)
    )
    return {row.pop("split"): row for row in map(dict, conn.execute(counts).mappings())}


def _with_contents(item: Sequence[Any]) -> sa.Select[Any]:
    return sa.select(
        *item,
        ProcessedFile.content,
        ProcessedFile.language,
        ProcessedFile.file_path,
        ProcessedFile.unit,
        ProcessedFile.split,
        Repository.source,
        ProcessedFile.licence,
    )


def _stream(conn: sa.Connection, members: sa.Select[Any]) -> Iterator[Member]:
    options = {"stream_results": True, "yield_per": _BATCH_ROWS}
    return (Member(*row) for row in conn.execute(members, execution_options=options))
