"""Finding the row that makes runs fail: its companions are halved, run by run, until it failed alone.

A row under suspicion carries one of two marks in `quarantined_reason`: `probe`, the next run takes exactly these, or
`suspect`, held back meanwhile. Nothing else remembers where the search is. Rows that were excluded meanwhile drop out.
"""

from typing import Any

import sqlalchemy as sa

from schema.backlog import lock_ingest
from schema.tables import QueueItem

PROBE, SUSPECT = "probe", "suspect"
_MARKS = (PROBE, SUSPECT)
# The newest failures of a line that its rows caused: others do not count, a run that ended otherwise ends the series.
_COUNT_FAILURES = sa.text(
    """
    SELECT count(*) FROM training_runs
    WHERE line_id = :line_id AND kind = 'adapter' AND state = 'failed'
        AND CAST(figures #>> '{failure,data_caused}' AS boolean)
        AND number > coalesce((
            SELECT max(number) FROM training_runs
            WHERE line_id = :line_id AND kind <> 'base' AND state IN ('promoted', 'held', 'rejected')
        ), 0)
    """
)
_MEMBERS = """
    FROM training_queue q JOIN training_run_items i USING (line_id, item_kind, item_id)
    WHERE i.run_id = :run_id AND i.role = 'train' AND q.run_id IS NULL AND q.quarantined_reason IS NULL
        AND q.excluded_reason IS NULL
"""
_HELD_BACK = """
    FROM training_queue q
    WHERE q.line_id = :line_id AND q.quarantined_reason = 'suspect' AND q.excluded_reason IS NULL
"""
_HALVE = """
    WITH suspects AS (
        SELECT q.line_id, q.item_kind, q.item_id, row_number() OVER (ORDER BY {order}) AS place, count(*) OVER () AS num
        {rows}
    )
    UPDATE training_queue q SET quarantined_reason = CASE WHEN 2 * place <= num + 1 THEN 'probe' ELSE 'suspect' END
    FROM suspects s
    WHERE q.line_id = s.line_id AND q.item_kind = s.item_kind AND q.item_id = s.item_id
"""
_HALVE_MEMBERS = sa.text(_HALVE.format(rows=_MEMBERS, order="i.ordinal"))
_HALVE_HELD_BACK = sa.text(_HALVE.format(rows=_HELD_BACK, order="q.rank DESC, q.item_kind, q.item_id"))
_TRY_AGAIN = sa.text(
    """
    UPDATE training_queue q SET quarantined_reason = 'probe'
    FROM training_run_items i
    WHERE i.run_id = :run_id AND i.role = 'train'
        AND q.line_id = i.line_id AND q.item_kind = i.item_kind AND q.item_id = i.item_id
        AND q.run_id IS NULL AND q.quarantined_reason IS NULL AND q.excluded_reason IS NULL
    """
)
_FETCH_MEMBER = sa.text(
    """
    SELECT i.item_kind, i.item_id, p.source AS repository, f.file_path AS path
    FROM training_run_items i
    JOIN processed_files f ON i.item_kind = 'file' AND f.id = i.item_id
    JOIN repositories p ON p.id = f.repository_id
    WHERE i.run_id = :run_id
    LIMIT 2
    """
)


def count_data_failures(conn: sa.Connection, line_id: int) -> int:
    """Count the failures in a row that the rows of a run caused; only those of ordinary rounds count."""
    return int(conn.execute(_COUNT_FAILURES, {"line_id": line_id}).scalar_one())


def count_suspects(conn: sa.Connection, line_id: int) -> int:
    """Count the rows under suspicion that wait, those of an open probe left out; 0 while no search is on."""
    return conn.execute(sa.select(sa.func.count()).where(*_has(line_id, *_MARKS))).scalar_one()


def narrow(conn: sa.Connection, run_id: int, line_id: int, reason: str) -> dict[str, Any] | None:
    """Draw the consequence of a run, just released, that failed because of its rows; the others are cleared.

    A row that failed alone is quarantined with `reason` and returned (item_kind, item_id, repository, path); several
    are halved, the better half to be tried next. A single row that had company, replayed or since excluded, is tried
    alone first.
    """
    lock_ingest(conn)
    _unmark(conn, line_id)
    members = conn.execute(_FETCH_MEMBER, {"run_id": run_id}).mappings().all()
    if len(members) != 1:
        conn.execute(_HALVE_MEMBERS, {"run_id": run_id})
        return None
    culprit = dict(members[0])
    is_it = (QueueItem.item_kind == culprit["item_kind"], QueueItem.item_id == culprit["item_id"])
    conn.execute(sa.update(QueueItem).where(QueueItem.line_id == line_id, *is_it).values(quarantined_reason=reason))
    return culprit


def pass_probe(conn: sa.Connection, line_id: int) -> int:
    """Clear the rows that were tried: the one at fault is among those held back, which are halved; return how many.

    0: none was held back, so the failure could not be reproduced and the search is over.
    """
    lock_ingest(conn)
    _unmark(conn, line_id, PROBE)
    num = conn.execute(_HALVE_HELD_BACK, {"line_id": line_id}).rowcount
    if num == 0:
        _unmark(conn, line_id)  # what is left of them is excluded
    return num


def try_again(conn: sa.Connection, run_id: int) -> None:
    """Mark the rows of a probe, just released, to be tried again: it failed for another reason than its rows."""
    lock_ingest(conn)
    conn.execute(_TRY_AGAIN, {"run_id": run_id})


def release_quarantined(conn: sa.Connection, line_id: int, reason: str | None = None) -> int:
    """Give quarantined rows back to the line, all or those of one reason; return how many."""
    lock_ingest(conn)
    chosen = QueueItem.quarantined_reason.is_not(None) if reason is None else QueueItem.quarantined_reason == reason
    back = sa.update(QueueItem).where(QueueItem.line_id == line_id, chosen).values(quarantined_reason=None)
    return conn.execute(back).rowcount


def count_quarantined(conn: sa.Connection, line_id: int) -> dict[str, int]:
    """Count a line's quarantined rows by reason."""
    by_reason = sa.select(QueueItem.quarantined_reason, sa.func.count()).where(
        QueueItem.line_id == line_id, QueueItem.quarantined_reason.is_not(None)
    )
    return {str(reason): num for reason, num in conn.execute(by_reason.group_by(QueueItem.quarantined_reason))}


def _unmark(conn: sa.Connection, line_id: int, *marks: str) -> None:
    conn.execute(sa.update(QueueItem).where(*_has(line_id, *(marks or _MARKS))).values(quarantined_reason=None))


def _has(line_id: int, *marks: str) -> tuple[sa.ColumnElement[bool], ...]:
    return QueueItem.line_id == line_id, QueueItem.quarantined_reason.in_(marks)
