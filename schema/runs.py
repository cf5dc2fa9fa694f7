"""Runs and their states: claim, advance, release, and what they measured. Every write checks the fence (I5)."""

import datetime as dt
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from schema import ledger
from schema.backlog import Limits, count_pending
from schema.leases import HeldLease, check_fence
from schema.members import Member, count_members, count_split, fetch_held_out, stream_members
from schema.suspects import PROBE, count_suspects
from schema.tables import CLOSED_STATES, OPEN_STATES, Line
from schema.tables import TrainingRun as Table
from schema.trace import current_tick

__all__ = [
    "Limits",
    "Member",
    "Run",
    "RunOpen",
    "StaleRun",
    "advance_run",
    "claim_run",
    "count_members",
    "count_pending",
    "count_split",
    "fetch_held_out",
    "fetch_last_failure",
    "fetch_open_run",
    "fetch_run",
    "fetch_runs",
    "release_run",
    "stream_members",
]

# Why a run failed that the operator ended: no failure in all but the state.
CANCELLED = "cancelled"
_RELEASING = ("held", "rejected", "failed")


class StaleRun(Exception):
    """The run is not in the state any more that the caller saw it in."""


class RunOpen(Exception):
    """The line has an open run: advance or release that one first."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one line as it was when it was fetched."""

    id: int
    uuid: str
    line_id: int
    number: int
    kind: str  # base | adapter | consolidation
    state: str
    fence: int
    config: dict[str, Any]
    base_revision: str | None
    parent_version: int | None
    version: int | None
    members_digest: str
    artifact_digest: str | None
    attempt: int
    cancel_requested_at: dt.datetime | None
    reason: str | None
    figures: dict[str, Any]
    history: list[dict[str, Any]]
    created_at: dt.datetime
    updated_at: dt.datetime
    finished_at: dt.datetime | None

    @property
    def decided_by(self) -> str | None:
        """The tick that decided on this run."""
        return self.history[0]["tick"] if self.history else None


_COLUMNS = [Table.__table__.c[field.name] for field in fields(Run)]


def claim_run(
    conn: sa.Connection,
    *,
    run_uuid: str,
    line_id: int,
    lease: HeldLease,
    kind: str,
    limits: Limits,
    min_rows: int,
    config: dict[str, Any],
    parent_version: int | None,
    replay_share: float = 0.0,
    by_hash_share: float | None = None,
    probe: bool = False,
) -> Run | None:
    """Open a run with the best pending rows, those that wait after the fresh ones; the rest stays pending.

    None, and nothing changed, with fewer than `min_rows` fresh rows to choose from (or none at all). `limits` then cut
    the choice, but never to nothing, so what `count_pending` promised can be claimed. An adapter run also gets
    `replay_share` as many rows of role replay, sampled from what the line has consumed before; a consolidation those
    that adapters of the line were trained on, as many more as `limits` allow. With `by_hash_share` the
    run takes whole split units, by hash, at most that share of those with pending rows. A `probe` takes the suspects
    that are to be tried next, and nothing else.

    Raises:
        StaleFence: the lease is another's. RunOpen: the line has an open run.
    """
    # Claimers of one line queue up here; NO KEY: ingest goes on adding rows that refer to the line.
    line = conn.execute(sa.select(Line.base_revision).where(Line.id == line_id).with_for_update(key_share=True)).one()
    check_fence(conn, lease)
    if (open_run := fetch_open_run(conn, line_id)) is not None:
        msg = f"line {line_id} has run {open_run.number} open ({open_run.state})"
        raise RunOpen(msg)
    savepoint = conn.begin_nested()
    new = sa.insert(Table).values(
        uuid=run_uuid,
        line_id=line_id,
        number=_next_number(line_id, kind),
        kind=kind,
        state="claimed",
        fence=lease.fence,
        config=config,
        base_revision=line.base_revision,
        parent_version=parent_version,
        members_digest="",
        figures={PROBE: count_suspects(conn, line_id)} if probe else {},
        history=_history_entry("claimed", 0),
    )
    run_id, number = conn.execute(new.returning(Table.id, Table.number)).one()
    role = "base" if kind == "base" else "train"
    if probe:
        num_taken = ledger.claim_probe(conn, run_id, line_id)
    else:
        num_taken = ledger.claim_items(conn, run_id, line_id, limits, min_rows=min_rows, role=role, share=by_hash_share)
    if num_taken == 0:
        savepoint.rollback()
        return None
    if kind == "consolidation":
        ledger.add_retained(conn, run_id, line_id, number, first_ordinal=num_taken, limits=limits)
    elif num_replayed := int(replay_share * num_taken):
        ledger.add_replay(conn, run_id, line_id, number, first_ordinal=num_taken, num_rows=num_replayed)
    savepoint.commit()
    digest = ledger.digest_members(conn, run_id)
    done = sa.update(Table).where(Table.id == run_id).values(members_digest=digest).returning(*_COLUMNS)
    return Run(*conn.execute(done).one())


def fetch_open_run(conn: sa.Connection, line_id: int) -> Run | None:
    """Fetch the one run of a line that still needs work."""
    # The literal states are the partial index's own predicate.
    is_open = sa.text(f"state IN ({', '.join(repr(state) for state in OPEN_STATES)})")
    row = conn.execute(sa.select(*_COLUMNS).where(Table.line_id == line_id, is_open)).one_or_none()
    return Run(*row) if row else None


def fetch_run(
    conn: sa.Connection,
    *,
    uuid: str | None = None,
    run_id: int | None = None,
    line_id: int | None = None,
    number: int | None = None,
) -> Run | None:
    """Fetch a run by its uuid, by its id, or by its line and number."""
    if uuid is not None:
        one = Table.uuid == uuid
    elif run_id is not None:
        one = Table.id == run_id
    elif line_id is not None and number is not None:
        one = sa.and_(Table.line_id == line_id, Table.number == number)
    else:
        raise ValueError("fetch_run needs a uuid, a run_id, or a line_id and a number")
    row = conn.execute(sa.select(*_COLUMNS).where(one)).one_or_none()
    return Run(*row) if row else None


def fetch_runs(conn: sa.Connection, line_id: int, *, limit: int) -> list[Run]:
    """Fetch the newest runs of a line, newest first."""
    newest = sa.select(*_COLUMNS).where(Table.line_id == line_id).order_by(Table.number.desc()).limit(limit)
    return [Run(*row) for row in conn.execute(newest)]


def fetch_last_failure(conn: sa.Connection, line_id: int) -> Run | None:
    """Fetch a line's last run if it failed, leaving out cancelled ones, and probes, which only narrow down why."""
    others = sa.func.coalesce(Table.reason, "").not_in(("probe_passed", CANCELLED))
    ended = sa.and_(Table.state.in_(CLOSED_STATES), others)
    newest = sa.select(*_COLUMNS).where(Table.line_id == line_id, ended).order_by(Table.number.desc()).limit(1)
    row = conn.execute(newest).one_or_none()
    return Run(*row) if row and row.state == "failed" else None


def advance_run(
    conn: sa.Connection,
    run: Run,
    *,
    lease: HeldLease,
    to: str,
    reason: str | None = None,
    figures: dict[str, Any] | None = None,
    artifact_digest: str | None = None,
    version: int | None = None,
    attempt: int | None = None,
) -> Run:
    """Move a run on from the state it was seen in; `figures` are merged into what it has, what is None stays.

    Raises:
        StaleFence: the lease is another's. StaleRun: the run has moved on already. ValueError: `to` gives rows back.
    """
    if to in _RELEASING:
        msg = f"a run that ends as {to} gives its rows back: use release_run"
        raise ValueError(msg)
    given = {"reason": reason, "artifact_digest": artifact_digest, "version": version, "attempt": attempt}
    return _move(
        conn, run, lease, to, figures or {}, {name: value for name, value in given.items() if value is not None}
    )


def release_run(
    conn: sa.Connection,
    run: Run,
    *,
    lease: HeldLease,
    to: str,
    reason: str,
    waiting: bool,
    figures: dict[str, Any] | None = None,
) -> Run:
    """End a run as held, rejected or failed and give its rows back; the ledger keeps what they were (I2).

    `waiting` rows are claimed again only beside enough fresh ones. Raises like `advance_run`.
    """
    if to not in _RELEASING:
        msg = f"a run is released as {', '.join(_RELEASING)}, not {to!r}"
        raise ValueError(msg)
    released = _move(conn, run, lease, to, figures or {}, {"reason": reason})
    ledger.release_items(conn, run.id, waiting=waiting)
    return released


def _next_number(line_id: int, kind: str) -> sa.ColumnElement[int]:
    # Run 0 is a line's own base; the first adapter is run 1 with or without one.
    before_first = -1 if kind == "base" else 0
    highest = sa.select(sa.func.max(Table.number)).where(Table.line_id == line_id).scalar_subquery()
    return sa.func.coalesce(highest, before_first) + 1


def _history_entry(state: str, attempt: int) -> sa.ColumnElement[Any]:
    entry = {"state": state, "attempt": attempt, "tick": current_tick()}
    told = sa.cast(sa.literal(entry, JSONB), JSONB)
    return sa.func.jsonb_build_array(told.op("||")(sa.func.jsonb_build_object("at", sa.func.now())), type_=JSONB)


def _move(
    conn: sa.Connection, run: Run, lease: HeldLease, to: str, figures: dict[str, Any], values: dict[str, Any]
) -> Run:
    check_fence(conn, lease)
    moved = (
        sa.update(Table)
        .where(Table.id == run.id, Table.state == run.state)
        .values(
            state=to,
            fence=lease.fence,
            updated_at=sa.func.now(),
            finished_at=sa.func.now() if to in CLOSED_STATES else None,
            figures=Table.figures.concat(figures),
            history=Table.history.concat(_history_entry(to, values.get("attempt", run.attempt))),
            **values,
        )
    )
    row = conn.execute(moved.returning(*_COLUMNS)).one_or_none()
    if row is None:
        msg = f"run {run.number} of line {run.line_id} is not {run.state} any more: fetch it again"
        raise StaleRun(msg)
    return Run(*row)
