"""Versions and who made which one current: changed by compare-and-swap alone (I4)."""

from typing import Any

import sqlalchemy as sa

from schema.leases import HeldLease, check_fence
from schema.tables import Line, Promotion, Version


def save_version(
    conn: sa.Connection,
    *,
    line_id: int,
    number: int,
    run_id: int,
    parent: int | None,
    manifest_digest: str,
    num_bytes: int,
    lease: HeldLease,
) -> None:
    """Record a version that lies complete on disk, as a candidate.

    Raises:
        StaleFence: the lease is another's.
    """
    check_fence(conn, lease)
    new = sa.insert(Version).values(
        line_id=line_id,
        number=number,
        run_id=run_id,
        parent=parent,
        verdict="candidate",
        manifest_digest=manifest_digest,
        num_bytes=num_bytes,
    )
    conn.execute(new)


def next_version_number(conn: sa.Connection, line_id: int) -> int:
    """Return the number of the line's next version, from 1."""
    highest = sa.func.coalesce(sa.func.max(Version.number), 0)
    return conn.execute(sa.select(highest + 1).where(Version.line_id == line_id)).scalar_one()


def set_verdict(conn: sa.Connection, line_id: int, number: int, verdict: str) -> None:
    """Record what the gate said: promoted, held or rejected."""
    conn.execute(sa.update(Version).where(*_is(line_id, number)).values(verdict=verdict))


def promote(
    conn: sa.Connection,
    *,
    line_id: int,
    version: int,
    expected: int | None,
    actor: str,
    reason: str,
    lease: HeldLease | None = None,
) -> bool:
    """Make a version current if `expected` still is (what it was judged against); also rolls back.

    Raises:
        LookupError: the line has no such version. StaleFence: a lease was given and is another's.
    """
    if lease is not None:
        check_fence(conn, lease)
    if fetch_version(conn, line_id, version) is None:
        msg = f"line {line_id} has no version {version}"
        raise LookupError(msg)
    swap = (
        sa.update(Line)
        .where(Line.id == line_id, Line.current_version.is_not_distinct_from(expected))
        .values(current_version=version)
    )
    if conn.execute(swap).rowcount == 0:
        return False
    record = sa.insert(Promotion).values(
        line_id=line_id, version=version, previous=expected, actor=actor, reason=reason
    )
    conn.execute(record)
    return True


def fetch_version(conn: sa.Connection, line_id: int, number: int) -> dict[str, Any] | None:
    """Fetch every column of one version."""
    row = conn.execute(sa.select(Version.__table__).where(*_is(line_id, number))).mappings().one_or_none()
    return dict(row) if row else None


def fetch_versions(conn: sa.Connection, line_id: int) -> list[dict[str, Any]]:
    """Fetch a line's versions, oldest first."""
    rows = conn.execute(sa.select(Version.__table__).where(Version.line_id == line_id).order_by(Version.number))
    return [dict(row) for row in rows.mappings()]


def fetch_promotions(conn: sa.Connection, line_id: int) -> list[dict[str, Any]]:
    """Fetch who made what current, oldest first."""
    rows = conn.execute(sa.select(Promotion.__table__).where(Promotion.line_id == line_id).order_by(Promotion.id))
    return [dict(row) for row in rows.mappings()]


def _is(line_id: int, number: int) -> tuple[sa.ColumnElement[bool], ...]:
    return Version.line_id == line_id, Version.number == number
