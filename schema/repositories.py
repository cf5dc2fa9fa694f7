"""The sources of files and their clone queue: add, claim under a lease, finish, retry, give up."""

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.caps import exempt_repository
from schema.rescans import stated_licence
from schema.tables import Repository

STATES = ("queued", "working", "done", "refused", "dead")
LONGEST_DELAY_S = 86_400
_UNFINISHED = ("queued", "working")
_FINAL = ("done", "refused", "dead")


class StaleLease(Exception):
    """Somebody else has taken the repository over: this worker's results are not wanted any more."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A repository that one worker holds; `lease_token` proves it in every write."""

    repository_id: int
    source: str
    kind: str
    origin: str
    lease_token: str
    attempts: int  # this one included
    unit_level: str | None
    head_commit: str | None
    licence: str | None  # as it was stated; what a visit found is looked for again
    owner: str | None
    name: str
    moved_to: str | None  # where it is cloned from since it was renamed
    api_licence: str | None = None  # SPDX id, as GitHub sees it
    last_licence: str | None = None  # stated or found, at the last visit
    judged_by: str | None = None  # the rules of the last visit


def add_source(
    conn: sa.Connection,
    *,
    source: str,
    kind: str,
    origin: str = "operator",
    host: str | None = None,
    owner: str | None = None,
    name: str,
    licence: str | None = None,
    priority: int = 0,
) -> tuple[int, bool]:
    """Queue a source; return its id and whether it is new. One that was finished with is queued again."""
    finished = Repository.state.in_(_FINAL)
    new = insert(Repository).values(
        source=source, kind=kind, origin=origin, host=host, owner=owner, name=name, licence=licence, priority=priority
    )
    again = new.on_conflict_do_update(
        index_elements=["source"],
        set_={
            "state": sa.case((finished, "queued"), else_=Repository.state),
            "attempts": sa.case((finished, 0), else_=Repository.attempts),
            "not_before": sa.case((finished, sa.func.now()), else_=Repository.not_before),
            "reason": sa.case((finished, None), else_=Repository.reason),
            # Who adds a source again wants it read: by other settings perhaps, and whatever its newest commit is.
            "head_commit": sa.case((finished, None), else_=Repository.head_commit),
            "priority": sa.func.greatest(Repository.priority, new.excluded.priority),
            "licence": sa.func.coalesce(new.excluded.licence, Repository.licence),
            "licence_evidence": sa.case((new.excluded.licence.is_(None), Repository.licence_evidence)),
            # What the operator names is not the crawler's to refuse any more.
            "origin": sa.case((new.excluded.origin == "operator", "operator"), else_=Repository.origin),
        },
    )
    is_new: sa.ColumnElement[bool] = sa.literal_column("xmax = 0", sa.Boolean)
    repository_id, newly_added = conn.execute(again.returning(Repository.id, is_new)).one()
    if origin == "operator" and not newly_added:
        exempt_repository(conn, repository_id)
    return repository_id, newly_added


def claim_repository(conn: sa.Connection, *, lease_s: float) -> Claim | None:
    """Take the best queued repository whose time has come, or one whose worker let its lease run out."""
    ready = sa.and_(Repository.state == "queued", _is_over(Repository.not_before, LONGEST_DELAY_S))
    abandoned = sa.and_(Repository.state == "working", _is_over(Repository.lease_until, lease_s))
    best = (
        sa.select(Repository.id)
        # The first condition is the index's own predicate, word for word.
        .where(sa.text("state IN ('queued', 'working')"), sa.or_(ready, abandoned))
        .order_by(Repository.priority.desc(), Repository.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    taken = (
        sa.update(Repository)
        .where(Repository.id == best)
        .values(
            state="working",
            lease_token=str(uuid.uuid4()),
            lease_until=_in(lease_s),
            attempts=Repository.attempts + 1,
        )
        .returning(
            Repository.id.label("repository_id"),
            Repository.source,
            Repository.kind,
            Repository.origin,
            Repository.lease_token,
            Repository.attempts,
            Repository.unit_level,
            Repository.head_commit,
            stated_licence.label("licence"),
            Repository.owner,
            Repository.name,
            Repository.moved_to,
            Repository.api_licence,
            Repository.licence.label("last_licence"),
            Repository.judged_by,
        )
    )
    row = conn.execute(taken).one_or_none()
    return Claim(**row._asdict()) if row else None


def renew_repository(conn: sa.Connection, claim: Claim, *, lease_s: float) -> bool:
    """Hold on to a repository for `lease_s` seconds more; False if it is not ours any more."""
    return conn.execute(_held(claim).values(lease_until=_in(lease_s))).rowcount == 1


def check_claim(conn: sa.Connection, claim: Claim) -> None:
    """Make sure that the claim holds until the end of this transaction.

    Raises:
        StaleLease: it does not.
    """
    held = sa.select(Repository.id).where(*_holds(claim)).with_for_update(read=True)
    if conn.execute(held).one_or_none() is None:
        raise _stale(claim)


def finish_repository(
    conn: sa.Connection,
    claim: Claim,
    *,
    head_commit: str | None,
    licence: str | None,
    licence_evidence: str | None,
    quality_score: float | None,
    code_lines: int,
    file_count: int,
    refusals: dict[str, int],
) -> None:
    """Record a visit that went well."""
    _leave(
        conn,
        claim,
        state="done",
        attempts=0,
        reason=None,
        head_commit=head_commit,
        licence=licence,
        licence_evidence=licence_evidence,
        quality_score=quality_score,
        code_lines=code_lines,
        file_count=file_count,
        refusals=refusals,
        visited_at=sa.func.now(),
    )


def confirm_repository(conn: sa.Connection, claim: Claim) -> None:
    """Record a visit that found nothing changed."""
    _leave(conn, claim, state="done", attempts=0, reason=None, visited_at=sa.func.now())


def forget_head(conn: sa.Connection, claim: Claim) -> None:
    """Forget which commit was read last, so that the next visit reads the repository whatever its newest commit is."""
    _write(conn, claim, head_commit=None)


def refuse_repository(conn: sa.Connection, claim: Claim, reason: str) -> None:
    """Give a repository up for good: trying again would end the same way."""
    _leave(conn, claim, state="refused", reason=reason, visited_at=sa.func.now())


def retry_repository(conn: sa.Connection, claim: Claim, reason: str, *, delay_s: float, max_attempts: int) -> str:
    """Queue a repository again after `delay_s` seconds, or declare it dead; return its new state."""
    is_dead = claim.attempts >= max_attempts
    state = "dead" if is_dead else "queued"
    # queue_due counts from there.
    _leave(conn, claim, state=state, reason=reason, not_before=_in(0 if is_dead else delay_s))
    return state


def give_back_repository(conn: sa.Connection, claim: Claim, reason: str, *, delay_s: float = 0.0) -> None:
    """Queue a repository again for in `delay_s` seconds, as if it had not been claimed: the attempt does not count."""
    _leave(conn, claim, state="queued", reason=reason, attempts=claim.attempts - 1, not_before=_in(delay_s))


def set_unit_level(conn: sa.Connection, claim: Claim, level: str) -> None:
    """Fix the level of a repository's split units (I6)."""
    _write(conn, claim, unit_level=level)


def set_licence(conn: sa.Connection, claim: Claim, licence: str | None, evidence: str) -> None:
    """Record the licence of a repository that is about to be refused for it."""
    _write(conn, claim, licence=licence, licence_evidence=evidence)


def set_rules(conn: sa.Connection, claim: Claim, judged_by: str) -> None:
    """Record by which rules a repository has been judged."""
    _write(conn, claim, judged_by=judged_by)


def set_visit(conn: sa.Connection, claim: Claim, *, num_files: int, num_bytes: int, seconds: float) -> None:
    """Record what a visit looked at and read, and how long it took: what the rates are made of."""
    _write(conn, claim, visit_files=num_files, visit_bytes=num_bytes, visit_seconds=seconds)


def set_local_path(conn: sa.Connection, claim: Claim, path: str | None) -> None:
    """Say where the repository's clone lies, None when it is gone."""
    _write(conn, claim, local_path=path)


def fetch_queue_counts(conn: sa.Connection) -> dict[str, int]:
    """Count the repositories of each state, those without any included."""
    rows = conn.execute(sa.select(Repository.state, sa.func.count()).group_by(Repository.state))
    return dict.fromkeys(STATES, 0) | {state: num for state, num in rows}  # noqa: C416 - a Row is no pair to mypy


def is_drained(conn: sa.Connection) -> bool:
    """Say whether nothing is queued and nobody works."""
    unfinished = sa.select(Repository.id).where(Repository.state.in_(_UNFINISHED))
    return not conn.execute(sa.select(unfinished.exists())).scalar_one()


def fetch_repositories(conn: sa.Connection, *, limit: int) -> list[dict[str, Any]]:
    """Fetch the newest repositories, every column of them."""
    newest = sa.select(Repository.__table__).order_by(Repository.id.desc()).limit(limit)
    return [dict(row) for row in conn.execute(newest).mappings()]


def _in(seconds: float) -> sa.ColumnElement[dt.datetime]:
    return sa.func.clock_timestamp() + dt.timedelta(seconds=seconds)


def _is_over(
    column: sa.orm.InstrumentedAttribute[dt.datetime | None] | sa.orm.InstrumentedAttribute[dt.datetime],
    longest_s: float,
) -> sa.ColumnElement[bool]:
    """Say whether a time has come, or lies so far ahead that it was written before the clock was set back.

    Nothing is written more than `longest_s` ahead; workers may differ in that, but not by a factor of two.
    """
    return sa.or_(column <= sa.func.now(), column > sa.func.now() + dt.timedelta(seconds=2 * longest_s))


def _holds(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        Repository.id == claim.repository_id,
        Repository.state == "working",
        Repository.lease_token == claim.lease_token,
    )


def _held(claim: Claim) -> sa.Update:
    return sa.update(Repository).where(*_holds(claim))


def _write(conn: sa.Connection, claim: Claim, **values: Any) -> None:
    if conn.execute(_held(claim).values(**values)).rowcount != 1:
        raise _stale(claim)


def _leave(conn: sa.Connection, claim: Claim, **values: Any) -> None:
    _write(conn, claim, lease_token=None, lease_until=None, **values)


def _stale(claim: Claim) -> StaleLease:
    return StaleLease(f"repository {claim.repository_id} ({claim.source}) is not held by this worker any more")
