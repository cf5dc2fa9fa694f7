"""How long the clone queue is, as metrics: also during a visit and between visits, for the queue is shared."""

import time
from dataclasses import dataclass

import sqlalchemy as sa

from monitoring import record
from schema.repositories import fetch_queue_counts


@dataclass(slots=True)
class QueueGauge:
    """Counts the sources by state: when one has been taken or left, and otherwise every `every_s` seconds."""

    every_s: float = 15.0
    _counted_at: float = float("-inf")

    def look(self, conn: sa.Connection, *, has_changed: bool) -> None:
        """Count if it is time; of others' visits nobody tells us."""
        now = time.monotonic()
        if has_changed or now - self._counted_at >= self.every_s:
            self._counted_at = now
            record.record_queue(fetch_queue_counts(conn))
