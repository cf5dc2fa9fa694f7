"""The crawler's SQL: passes over a language, their windows under leases, page by page."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.tables import CrawlPass, CrawlWindow

WINDOW_STATES = ("pending", "working", "done", "split", "kept")


class StaleWindow(Exception):
    """Another crawler has taken the window over: it goes on from the last page that was saved."""


@dataclass(frozen=True, slots=True)
class NewWindow:
    """A question as it is planned; `box` is what the planner makes it from again."""

    query: str
    box: dict[str, Any]
    max_pages: int


@dataclass(frozen=True, slots=True)
class WindowClaim:
    """A window that one crawler holds; `lease_token` proves it in every write."""

    window_id: int
    plan: str
    language: str
    kind: str
    root: str
    query: str
    box: dict[str, Any]
    max_pages: int
    cursor: str | None
    total: int | None
    num_found: int
    attempts: int
    lease_token: str


@dataclass(frozen=True, slots=True)
class Pass:
    """The pass over a language that runs: `since` is None in a full one, else its windows ask for later pushes."""

    kind: str
    started_at: dt.datetime
    since: dt.datetime | None


def open_pass(
    conn: sa.Connection, plan: str, language: str, *, root: str, now: dt.datetime, full_every: dt.timedelta
) -> Pass:
    """Go on with a language's pass, or begin one: of pushes alone, or a full one.

    It is full at first, every `full_every`, and when `root`, the question of a full pass, was never asked.

    Windows that were kept for later are read again now. The caller adds the windows in the same transaction, under the
    row's lock, which this takes.
    """
    conn.execute(insert(CrawlPass).values(plan=plan, language=language).on_conflict_do_nothing())
    mine = (CrawlPass.plan == plan, CrawlPass.language == language)
    row = conn.execute(sa.select(CrawlPass.__table__).where(*mine).with_for_update()).one()
    conn.execute(_of(plan, language, "kept").values(state="pending", attempts=0, not_before=None))
    if row.kind is not None:
        return Pass(row.kind, row.started_at, None if row.kind == "full" else row.seen_until)
    asked = sa.select(CrawlWindow.id).where(CrawlWindow.plan == plan, CrawlWindow.kind == "full")
    is_known = conn.execute(sa.select(asked.where(CrawlWindow.root == root).exists())).scalar_one()
    is_due = row.full_at is None or now - row.full_at >= full_every
    kind = "full" if is_due or not is_known else "pushed"
    conn.execute(sa.update(CrawlPass).where(*mine).values(kind=kind, started_at=now))
    if kind == "full":
        again = {"state": "pending", "not_before": None, "attempts": 0, "num_found": 0, "cursor": None, "reason": None}
        conn.execute(_of(plan, language, "done").where(CrawlWindow.kind == "full").values(again))
    over = sa.delete(CrawlWindow).where(CrawlWindow.plan == plan, CrawlWindow.language == language)
    conn.execute(over.where(CrawlWindow.kind == "pushed", CrawlWindow.state.in_(("done", "split"))))
    return Pass(kind, now, None if kind == "full" else row.seen_until)


def plan_windows(
    conn: sa.Connection, plan: str, language: str, kind: str, roots: Sequence[NewWindow], *, replace: bool
) -> None:
    """Add the windows with which a pass begins; with `replace` those of other roots are dropped, with all parts."""
    if replace:
        others = sa.delete(CrawlWindow).where(CrawlWindow.plan == plan, CrawlWindow.language == language)
        conn.execute(others.where(CrawlWindow.kind == kind, CrawlWindow.root.not_in([root.query for root in roots])))
    _add(conn, [_row(plan, language, kind, root.query, root) for root in roots])


def claim_window(
    conn: sa.Connection, plan: str, languages: Sequence[str], *, lease_s: float, now: dt.datetime
) -> WindowClaim | None:
    """Take the oldest window that is left to read, or one whose crawler let its lease run out."""
    ready = sa.and_(CrawlWindow.state == "pending", sa.func.coalesce(CrawlWindow.not_before, now) <= now)
    abandoned = sa.and_(CrawlWindow.state == "working", CrawlWindow.lease_until < sa.func.now())
    first = (
        sa.select(CrawlWindow.id)
        .where(CrawlWindow.plan == plan, CrawlWindow.language.in_(languages))
        # The index's own predicate, word for word.
        .where(sa.text("state IN ('pending', 'working')"), sa.or_(ready, abandoned))
        .order_by(CrawlWindow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    claimed = (
        sa.update(CrawlWindow)
        .where(CrawlWindow.id == first)
        .values(state="working", lease_token=str(uuid.uuid4()), lease_until=_in(lease_s))
        .returning(
            CrawlWindow.id.label("window_id"),
            *(getattr(CrawlWindow, name) for name in WindowClaim.__slots__ if name != "window_id"),
        )
    )
    row = conn.execute(claimed).one_or_none()
    return WindowClaim(**row._asdict()) if row else None


def renew_window(conn: sa.Connection, claim: WindowClaim, *, lease_s: float) -> None:
    """Hold on to a window for `lease_s` seconds more; raises StaleWindow if it is not ours any more."""
    _write(conn, claim, lease_until=_in(lease_s))


def turn_page(
    conn: sa.Connection, claim: WindowClaim, *, cursor: str | None, total: int, num_items: int, lease_s: float
) -> None:
    """Say that a page of the window is saved, in the transaction that saves it; `cursor` is the next one."""
    num_found = CrawlWindow.num_found + num_items
    _write(conn, claim, cursor=cursor, total=total, num_found=num_found, lease_until=_in(lease_s))


def restart_window(conn: sa.Connection, claim: WindowClaim) -> None:
    """Begin the window again: its pages are not those of before."""
    _write(conn, claim, cursor=None, num_found=0)


def finish_window(conn: sa.Connection, claim: WindowClaim, *, reason: str | None, now: dt.datetime) -> None:
    """Say that a window was read to its end; `reason` is what of it stays hidden."""
    _leave(conn, claim, state="done", cursor=None, reason=reason, attempts=0, last_seen=now)


def split_window(conn: sa.Connection, claim: WindowClaim, parts: Sequence[NewWindow], *, total: int) -> None:
    """Replace a window by its parts."""
    _leave(conn, claim, state="split", cursor=None, total=total, reason=None)
    _add(conn, [_row(claim.plan, claim.language, claim.kind, claim.root, part) for part in parts])


def release_window(conn: sa.Connection, claim: WindowClaim) -> None:
    """Leave a window to whoever comes next; the cursor stays."""
    _leave(conn, claim, state="pending")


def postpone_window(
    conn: sa.Connection, claim: WindowClaim, reason: str, *, until: dt.datetime, max_attempts: int
) -> str:
    """Put a window off `until` then, or after too many times keep it for the next crawl; return its state."""
    attempts = claim.attempts + 1
    state = "kept" if attempts >= max_attempts else "pending"
    _leave(conn, claim, state=state, reason=reason, attempts=attempts, not_before=until)
    return state


def close_passes(conn: sa.Connection, plan: str, languages: Sequence[str]) -> list[str]:
    """End the passes that have no window left to read; return their languages. Kept windows stay to be read later."""
    left = sa.select(CrawlWindow.id).where(
        CrawlWindow.plan == CrawlPass.plan,
        CrawlWindow.language == CrawlPass.language,
        sa.text("state IN ('pending', 'working')"),
    )
    full_at = sa.case((CrawlPass.kind == "full", CrawlPass.started_at), else_=CrawlPass.full_at)
    over = (
        sa.update(CrawlPass)
        .where(CrawlPass.plan == plan, CrawlPass.language.in_(languages))
        .where(CrawlPass.kind.is_not(None), ~left.exists())
        .values(seen_until=CrawlPass.started_at, full_at=full_at, kind=None, started_at=None)
        .returning(CrawlPass.language)
    )
    return sorted(conn.execute(over).scalars())


def count_windows(conn: sa.Connection, plan: str, languages: Sequence[str]) -> dict[str, int]:
    """Count the windows of these languages by state."""
    counted = sa.select(CrawlWindow.state, sa.func.count()).group_by(CrawlWindow.state)
    rows = conn.execute(counted.where(CrawlWindow.plan == plan, CrawlWindow.language.in_(languages)))
    return dict.fromkeys(WINDOW_STATES, 0) | {state: num for state, num in rows}  # noqa: C416 - a Row is no pair


def fetch_reasons(conn: sa.Connection, plan: str, languages: Sequence[str]) -> list[dict[str, Any]]:
    """Fetch the windows that hide something: those kept for later, and those of which not all is shown."""
    hiding = sa.select(CrawlWindow.query, CrawlWindow.state, CrawlWindow.reason, CrawlWindow.total)
    hiding = hiding.where(CrawlWindow.plan == plan, CrawlWindow.language.in_(languages))
    return [dict(row) for row in conn.execute(hiding.where(CrawlWindow.reason.is_not(None))).mappings()]


def _of(plan: str, language: str, state: str) -> sa.Update:
    update = sa.update(CrawlWindow).where(CrawlWindow.plan == plan, CrawlWindow.language == language)
    return update.where(CrawlWindow.state == state)


def _row(plan: str, language: str, kind: str, root: str, window: NewWindow) -> dict[str, Any]:
    values = {"query": window.query, "box": window.box, "max_pages": window.max_pages}
    return {"plan": plan, "language": language, "kind": kind, "root": root, **values}


def _add(conn: sa.Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        conn.execute(insert(CrawlWindow).on_conflict_do_nothing(index_elements=["plan", "query"]), rows)


def _in(seconds: float) -> sa.ColumnElement[dt.datetime]:
    return sa.func.clock_timestamp() + dt.timedelta(seconds=seconds)


def _write(conn: sa.Connection, claim: WindowClaim, **values: Any) -> None:
    held = sa.update(CrawlWindow).where(
        CrawlWindow.id == claim.window_id, CrawlWindow.state == "working", CrawlWindow.lease_token == claim.lease_token
    )
    if conn.execute(held.values(**values)).rowcount != 1:
        raise StaleWindow(f"window {claim.window_id} ({claim.query}) is not held by this crawler any more")


def _leave(conn: sa.Connection, claim: WindowClaim, **values: Any) -> None:
    _write(conn, claim, lease_token=None, lease_until=None, **values)
