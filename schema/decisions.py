"""What each tick decided and why: repeats are one row with a count."""

from typing import Any

import sqlalchemy as sa

from schema.tables import Decision
from schema.trace import current_tick


def record_decision(conn: sa.Connection, line_id: int, *, verdict: str, reason: str, inputs: dict[str, Any]) -> None:
    """Record a decision; one like the line's last is counted there, with its newer inputs and tick."""
    last = sa.select(Decision.id).where(Decision.line_id == line_id).order_by(Decision.id.desc()).limit(1)
    repeat = (
        sa.update(Decision)
        .where(Decision.id == last.scalar_subquery(), Decision.verdict == verdict, Decision.reason == reason)
        .values(repeated=Decision.repeated + 1, last_at=sa.func.now(), inputs=inputs, tick=current_tick())
    )
    if conn.execute(repeat).rowcount == 0:
        new = {"line_id": line_id, "verdict": verdict, "reason": reason, "inputs": inputs, "tick": current_tick()}
        conn.execute(sa.insert(Decision).values(**new))


def fetch_decisions(conn: sa.Connection, line_id: int, *, limit: int) -> list[dict[str, Any]]:
    """Fetch a line's newest decisions, newest first."""
    newest = sa.select(Decision.__table__).where(Decision.line_id == line_id).order_by(Decision.id.desc()).limit(limit)
    return [dict(row) for row in conn.execute(newest).mappings()]
