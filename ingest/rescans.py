"""Visits that nobody asked for: what the operator named is read again at an interval."""

import logging

import sqlalchemy as sa

from schema.rescans import queue_due

log = logging.getLogger(__name__)


def rescan(engine: sa.Engine, *, interval_s: int) -> int:
    """Queue again what was visited `interval_s` seconds ago or longer, 0 for never; return how many sources."""
    if interval_s == 0:
        return 0
    with engine.begin() as conn:
        num_due = queue_due(conn, interval_s=interval_s)
    if num_due:
        log.info("%d sources are due again", num_due, extra={"event": "rescan", "sources": num_due})
    return num_due
