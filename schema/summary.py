"""What a line looks like from outside: the figures of the state file and of the store's metrics."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from schema.backlog import Limits, is_pending
from schema.tables import QueueItem

_STATE = sa.text("""
    SELECT lines.name AS line,
           lines.current_version,
           (SELECT count(*) FROM training_runs r
             WHERE r.line_id = lines.id AND r.kind <> 'base' AND r.state = 'promoted') AS total_training_runs,
           consumed.num AS total_samples_trained,
           consumed.last_id AS last_trained_id,
           (SELECT max(r.finished_at) FROM training_runs r
             WHERE r.line_id = lines.id AND r.kind <> 'base' AND r.state = 'promoted') AS last_training_time
      FROM lines,
   LATERAL (SELECT count(*) AS num, coalesce(max(i.item_id), 0) AS last_id
              FROM training_run_items i JOIN training_runs r ON r.id = i.run_id
             WHERE i.line_id = lines.id AND i.role = 'train' AND i.released_at IS NULL AND r.state = 'promoted'
           ) AS consumed
     WHERE lines.id = :line_id
""")


def fetch_state(conn: Connection, line_id: int) -> dict[str, Any]:
    """Return what the state file says of a line: derived from the ledger, for display alone (I1, I3)."""
    row = conn.execute(_STATE, {"line_id": line_id}).mappings().one()
    last = row["last_training_time"]
    return {**row, "last_training_time": None if last is None else last.isoformat()}


def sum_pending(conn: Connection, line_id: int, limits: Limits) -> tuple[int, int]:
    """Return the rows and characters that are pending and eligible: for a forecast, it reads the whole backlog."""
    sums = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(QueueItem.num_chars), 0))
    rows, chars = conn.execute(sums.where(is_pending(line_id, limits))).one()
    return int(rows), int(chars)
