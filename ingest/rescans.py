"""Visits that nobody asked for: what the operator named is read again at an interval, what other rules judged too."""

import datetime as dt
import logging

import sqlalchemy as sa

from ingest.config import IngestSettings
from ingest.policy import ORIGINS, name_settings
from schema.chores import finish_chore, take_chore
from schema.rescans import queue_due, queue_outdated

log = logging.getLogger(__name__)
CHORE = "judge_again"


def rescan(engine: sa.Engine, settings: IngestSettings) -> int:
    """Queue again what is due; return how many sources.

    A change of the rules makes every source outdated: they come one by one, so many an hour on all machines together.
    """
    rules = {origin: name_settings(origin, settings) for origin in ORIGINS}
    num_due = num_outdated = 0
    with engine.begin() as conn:
        if settings.rescan_interval_s:
            num_due = queue_due(
                conn, interval_s=settings.rescan_interval_s, rules=rules, max_attempts=settings.max_attempts
            )
        if settings.judged_again_per_hour:
            num_outdated = _queue_outdated(conn, settings.judged_again_per_hour, rules)
    if num_due:
        log.info("%d sources are due again", num_due, extra={"event": "rescan", "sources": num_due})
    if num_outdated:
        log.info("a source was judged by other rules: it is read again", extra={"event": "judge_again"})
    return num_due + num_outdated


def _queue_outdated(conn: sa.Connection, per_hour: int, rules: dict[str, str]) -> int:
    every = dt.timedelta(hours=1) / per_hour
    if not take_chore(conn, CHORE, every=every):
        return 0
    num_outdated = queue_outdated(conn, rules=rules)
    finish_chore(conn, CHORE, every=every, figures={"sources": num_outdated})
    return num_outdated
