"""What the page shows of the database: as it was a moment ago, and the last that was seen while it is away."""

import contextlib
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from schema.jobs import fetch_jobs
from schema.lines import fetch_line
from schema.listings import list_decisions, list_versions
from schema.overview import sum_refusals
from schema.repositories import fetch_queue_counts

log = logging.getLogger(__name__)
_MAX_AGE_S = 2.0
# It reads every source.
_MAX_REFUSALS_AGE_S = 60.0
_NUM_SHOWN = 8
_NUM_VERSIONS = 12


@dataclass(slots=True)
class Board:
    """Versions, decisions, jobs, queue and refusals of one line, read at most every few seconds."""

    engine: sa.Engine
    line: str
    _shown: dict[str, Any] = field(default_factory=dict)
    _shown_at: float = -_MAX_AGE_S
    _refusals: dict[str, int] = field(default_factory=dict)
    _refusals_at: float = -_MAX_REFUSALS_AGE_S
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def show(self) -> dict[str, Any]:
        """Return what is known; whoever comes while another asks is answered at once by what was."""
        is_old = time.monotonic() - self._shown_at >= _MAX_AGE_S
        if is_old and self._lock.acquire(blocking=False):
            try:
                with contextlib.suppress(sa.exc.SQLAlchemyError), self.engine.connect() as conn:
                    self._shown = self._fetch(conn)
                self._shown_at = time.monotonic()
            finally:
                self._lock.release()
        return self._shown

    def _fetch(self, conn: sa.Connection) -> dict[str, Any]:
        line = fetch_line(conn, self.line)
        if line is None:
            return {}
        if time.monotonic() - self._refusals_at >= _MAX_REFUSALS_AGE_S:
            self._refusals, self._refusals_at = sum_refusals(conn), time.monotonic()
        jobs = fetch_jobs(conn, line.id, limit=_NUM_SHOWN)
        return {
            "paused": line.paused,
            "versions": [_describe_version(row) for row in list_versions(conn, line.id, limit=_NUM_VERSIONS)],
            "decisions": [_describe_decision(row) for row in list_decisions(conn, line.id, limit=_NUM_SHOWN)],
            "jobs": [{"state": job.state, "run": job.run, "asked_by": job.asked_by} for job in jobs],
            "ingest": {"queue": fetch_queue_counts(conn), "refusals": self._refusals},
        }


def _describe_version(row: dict[str, Any]) -> dict[str, Any]:
    bits = (row["gate"] or {}).get("bits_per_byte") or {}
    return {
        "number": row["number"],
        "verdict": row["verdict"],
        "parent": row["parent"],
        "run": row["run"],
        "bits_per_byte": bits.get("candidate"),
        "judged_against": bits.get("incumbent", bits.get("base")),
        "created_at": row["created_at"].isoformat(timespec="seconds"),
    }


def _describe_decision(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("verdict", "reason", "inputs", "repeated")},
        "last_at": row["last_at"].isoformat(timespec="seconds"),
    }
