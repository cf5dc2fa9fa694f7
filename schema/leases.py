"""Who may work on a line or a device: leases on the database's clock, with a fence that only grows (I5)."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.tables import Lease


class StaleFence(Exception):
    """Somebody else has taken the lease over: this holder's writes are refused."""


# The holder of a lease that was given back: a successor need not wait to see whether it comes to life again.
NOBODY = ""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease that was ours when we last looked."""

    name: str  # line:<name> | device:<machine>:<GPU UUID or cpu>
    holder: str
    fence: int


def acquire_lease(conn: sa.Connection, name: str, holder: str, *, length_s: float) -> HeldLease | None:
    """Take a lease that is free, expired or the holder's own; None while another holds it.

    The fence grows unless the holder merely renews a lease that has not run out.
    """
    expired = Lease.until <= sa.func.clock_timestamp()
    new = insert(Lease).values(name=name, holder=holder, fence=1, until=_in(length_s))
    own = Lease.holder == new.excluded.holder
    taken = new.on_conflict_do_update(
        index_elements=["name"],
        set_={
            "holder": new.excluded.holder,
            "until": new.excluded.until,
            "fence": sa.case((sa.and_(own, sa.not_(expired)), Lease.fence), else_=Lease.fence + 1),
        },
        where=sa.or_(own, expired),
    )
    fence = conn.execute(taken.returning(Lease.fence)).scalar_one_or_none()
    return None if fence is None else HeldLease(name, holder, fence)


def take_over_lease(
    conn: sa.Connection, name: str, holder: str, *, seen: Mapping[str, Any], length_s: float
) -> HeldLease | None:
    """Take a lease from another that has not renewed it since it was `seen` (`fetch_lease`); None if it has.

    Whether it has run out is the caller's to judge, by its own clock: this one may have been set back.
    """
    unchanged = [Lease.holder == seen["holder"], Lease.fence == seen["fence"], Lease.until == seen["until"]]
    taken = sa.update(Lease).where(Lease.name == name, *unchanged)
    values = {"holder": holder, "fence": Lease.fence + 1, "until": _in(length_s)}
    fence = conn.execute(taken.values(**values).returning(Lease.fence)).scalar_one_or_none()
    return None if fence is None else HeldLease(name, holder, fence)


def renew_lease(conn: sa.Connection, lease: HeldLease, *, length_s: float) -> bool:
    """Hold on to a lease for `length_s` seconds more; False if it is not ours any more."""
    return conn.execute(sa.update(Lease).where(*_is_ours(lease)).values(until=_in(length_s))).rowcount == 1


def release_lease(conn: sa.Connection, lease: HeldLease) -> None:
    """Let the next one in at once; the row stays, so that its fence goes on growing."""
    conn.execute(sa.update(Lease).where(*_is_ours(lease)).values(holder=NOBODY, until=sa.func.clock_timestamp()))


def fetch_lease(conn: sa.Connection, name: str) -> dict[str, Any] | None:
    """Fetch name, holder, fence, until, and whether it has expired by the database's clock."""
    expired = (Lease.until <= sa.func.clock_timestamp()).label("expired")
    found = sa.select(Lease.name, Lease.holder, Lease.fence, Lease.until, expired).where(Lease.name == name)
    row = conn.execute(found).mappings().one_or_none()
    return dict(row) if row else None


def check_fence(conn: sa.Connection, lease: HeldLease) -> None:
    """Make sure that the lease stays ours until the end of this transaction.

    Raises:
        StaleFence: it is not ours any more.
    """
    ours = sa.select(Lease.fence).where(*_is_ours(lease)).with_for_update(read=True)
    if conn.execute(ours).one_or_none() is None:
        msg = f"{lease.holder} has lost the lease {lease.name} (fence {lease.fence}) to another process"
        raise StaleFence(msg)


def _is_ours(lease: HeldLease) -> tuple[sa.ColumnElement[bool], ...]:
    return Lease.name == lease.name, Lease.holder == lease.holder, Lease.fence == lease.fence


def _in(seconds: float) -> sa.ColumnElement[dt.datetime]:
    return sa.func.clock_timestamp() + dt.timedelta(seconds=seconds)
