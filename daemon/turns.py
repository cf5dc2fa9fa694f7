"""Lines that share a device take turns: who finds it busy leaves a ticket, and a new run lets its holder go first."""

from daemon.context import Context
from schema.leases import NOBODY, HeldLease, acquire_lease, fetch_lease, release_lease

# Seconds between two looks of a line that waits for its device: one that is free shall not stay so for long.
LOOK_S = 2.0


def take_device(ctx: Context, *, new_run: bool) -> HeldLease | None:
    """Return the lease on the device; None when another has it, or when a new run has to let a waiting line go first.

    Who finds it busy leaves the ticket, if nobody has. It is renewed by asking again, so that one whose holder has
    died, or waits no more, runs out within a lease's length and blocks nobody.
    """
    if new_run and _another_waits(ctx):
        return None
    lease = ctx.leadership.take(ctx.device.lease)
    with ctx.engine.begin() as conn:
        ticket = acquire_lease(conn, _ticket(ctx), ctx.leadership.holder, length_s=ctx.settings.line_lease_s)
        if lease is not None and ticket is not None:
            release_lease(conn, ticket)
    return lease


def _another_waits(ctx: Context) -> bool:
    with ctx.engine.connect() as conn:
        ticket = fetch_lease(conn, _ticket(ctx))
    return ticket is not None and not ticket["expired"] and ticket["holder"] not in (NOBODY, ctx.leadership.holder)


def _ticket(ctx: Context) -> str:
    return f"turn:{ctx.device.lease}"
