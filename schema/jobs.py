"""Jobs: requests for a run, as rows, so that they outlive restarts; and the wish to cancel one run, and no other."""

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.runs import Run, fetch_open_run
from schema.tables import OPEN_STATES, TrainingRun
from schema.tables import Job as Table

STATES = ("queued", "running", "promoted", "held", "rejected", "failed", "cancelled")
MOST_QUEUED = 100


class TooManyJobs(Exception):
    """As many jobs wait as may."""


class KeyTaken(Exception):
    """The idempotency key belongs to a job that was asked for in other words."""


class JobOver(Exception):
    """The job has come to its end: there is nothing left to cancel."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request for a run, and what came of it; `number` orders the jobs of all lines."""

    number: int
    id: str
    state: str
    forced: bool
    asked_by: str
    reason: str | None
    run: int | None
    version: int | None
    outcome: str | None  # why the run ended as it did
    created_at: dt.datetime
    finished_at: dt.datetime | None


_QUEUED = (sa.text("run_id IS NULL AND cancelled_at IS NULL"),)  # the partial index's own predicate
_JOBS = (
    sa.select(
        Table.id,
        Table.uuid,
        Table.forced,
        Table.asked_by,
        Table.reason,
        Table.run_id,
        Table.cancelled_at,
        Table.created_at,
        TrainingRun.number,
        TrainingRun.version,
        TrainingRun.state,
        TrainingRun.reason.label("outcome"),
        TrainingRun.finished_at,
    )
    .select_from(Table)
    .outerjoin(TrainingRun, TrainingRun.id == Table.run_id)
)


def add_job(
    conn: sa.Connection,
    line_id: int,
    *,
    forced: bool,
    asked_by: str,
    reason: str | None = None,
    key: str | None = None,
) -> Job:
    """Ask for a run: with `forced` on whatever is pending, else when the policy says so. One key is one job.

    Raises:
        KeyTaken: `asked_by` has used `key` for something else. TooManyJobs: MOST_QUEUED of the line wait.
    """
    asked = {"forced": forced, "reason": reason}
    new = insert(Table).values(uuid=str(uuid.uuid4()), line_id=line_id, asked_by=asked_by, idempotency_key=key, **asked)
    number = conn.execute(new.on_conflict_do_nothing().returning(Table.id)).scalar_one_or_none()
    if number is None:
        same_key = sa.and_(Table.asked_by == asked_by, Table.idempotency_key == key)
        known = conn.execute(sa.select(Table.id, Table.line_id, Table.forced, Table.reason).where(same_key)).one()
        if (known.line_id, known.forced, known.reason) != (line_id, forced, reason):
            msg = f"the key {key!r} belongs to another request: choose a new one"
            raise KeyTaken(msg)
        number = known.id
    elif conn.execute(sa.select(sa.func.count()).where(Table.line_id == line_id, *_QUEUED)).scalar_one() > MOST_QUEUED:
        msg = f"{MOST_QUEUED} jobs wait already: one run answers them all; cancel some, or wait"
        raise TooManyJobs(msg)
    return _one(conn, Table.id == number)


def fetch_job(conn: sa.Connection, line_id: int, job_id: str) -> Job | None:
    """Fetch one job of a line."""
    row = conn.execute(_JOBS.where(Table.line_id == line_id, Table.uuid == job_id)).one_or_none()
    return _job(row) if row else None


def fetch_jobs(conn: sa.Connection, line_id: int, *, limit: int, before: int | None = None) -> list[Job]:
    """Fetch the newest jobs of a line, newest first; `before` goes on after the job of that number."""
    asked = _JOBS.where(Table.line_id == line_id)
    if before is not None:
        asked = asked.where(Table.id < before)
    return [_job(row) for row in conn.execute(asked.order_by(Table.id.desc()).limit(limit))]


def is_run_requested(conn: sa.Connection, line_id: int) -> bool:
    """Say whether somebody waits for a run, however few rows there are."""
    waiting = sa.select(Table.id).where(Table.line_id == line_id, Table.forced, *_QUEUED)
    return bool(conn.execute(sa.select(waiting.exists())).scalar_one())


def answer_jobs(conn: sa.Connection, run: Run) -> None:
    """Let a run that was just claimed answer every job that waits; one for all, as it takes all there is."""
    conn.execute(sa.update(Table).where(Table.line_id == run.line_id, *_QUEUED).values(run_id=run.id))


def cancel_job(conn: sa.Connection, line_id: int, job_id: str) -> Job:
    """Cancel a job before its run, or the run that came of it, for every job that it answers.

    Raises:
        LookupError: the line has no such job. JobOver: its run has ended.
    """
    own = sa.and_(Table.line_id == line_id, Table.uuid == job_id)
    conn.execute(sa.update(Table).where(own, *_QUEUED).values(cancelled_at=sa.func.now()))
    job = fetch_job(conn, line_id, job_id)
    if job is None:
        msg = f"there is no job {job_id!r}"
        raise LookupError(msg)
    if job.state == "running":
        run_id = sa.select(Table.run_id).where(own).scalar_subquery()
        if not _cancel_run(conn, TrainingRun.id == run_id):
            job = _one(conn, own)  # the run has ended meanwhile
    if job.state not in ("cancelled", "running"):
        msg = f"job {job_id} has ended: {job.state}"
        raise JobOver(msg)
    return job


def cancel_all(conn: sa.Connection, line_id: int) -> tuple[Run | None, int]:
    """Cancel the open run and every job that waits; return the run and the number of jobs."""
    waiting = sa.update(Table).where(Table.line_id == line_id, *_QUEUED).values(cancelled_at=sa.func.now())
    num_jobs = conn.execute(waiting).rowcount
    run = fetch_open_run(conn, line_id)
    if run is not None and not _cancel_run(conn, TrainingRun.id == run.id):
        run = None
    return run, num_jobs


def is_cancel_requested(conn: sa.Connection, run_id: int) -> bool:
    """Say whether somebody asked to cancel this run."""
    asked = sa.select(TrainingRun.cancel_requested_at.is_not(None)).where(TrainingRun.id == run_id)
    return bool(conn.execute(asked).scalar_one())


def _cancel_run(conn: sa.Connection, which: sa.ColumnElement[bool]) -> bool:
    is_open = TrainingRun.state.in_(OPEN_STATES)
    wish = sa.update(TrainingRun).where(which, is_open).values(cancel_requested_at=sa.func.now())
    return conn.execute(wish).rowcount == 1


def _one(conn: sa.Connection, which: sa.ColumnElement[bool]) -> Job:
    return _job(conn.execute(_JOBS.where(which)).one())


def _job(row: Any) -> Job:
    return Job(
        number=row.id,
        id=row.uuid,
        state=_state_of(row),
        forced=row.forced,
        asked_by=row.asked_by,
        reason=row.reason,
        run=row.number,
        version=row.version,
        outcome=row.outcome,
        created_at=row.created_at,
        finished_at=row.cancelled_at or row.finished_at,
    )


def _state_of(row: Any) -> str:
    if row.cancelled_at is not None or row.outcome == "cancelled":
        return "cancelled"
    if row.state is None:
        return "queued"
    return "running" if row.state in OPEN_STATES else str(row.state)
