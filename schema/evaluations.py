"""What the gate measured: one figure per model, set, metric, language and unit of a run."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.tables import Evaluation


def save_evaluations(conn: sa.Connection, run_id: int, rows: Sequence[dict[str, Any]]) -> None:
    """Store figures (model, eval_set, metric, language, unit, value, num_bytes); the same one again replaces it."""
    new = insert(Evaluation)
    key = ("run_id", "model", "eval_set", "metric", "language", "unit")
    again = new.on_conflict_do_update(
        index_elements=key, set_={name: new.excluded[name] for name in ("value", "num_bytes", "created_at")}
    )
    if rows:
        conn.execute(again, [{"language": "", "unit": ""} | row | {"run_id": run_id} for row in rows])


def fetch_evaluations(conn: sa.Connection, run_id: int) -> list[dict[str, Any]]:
    """Fetch the figures of a run, every column of them, in the order of their key."""
    key = (Evaluation.model, Evaluation.eval_set, Evaluation.metric, Evaluation.language, Evaluation.unit)
    rows = conn.execute(sa.select(Evaluation.__table__).where(Evaluation.run_id == run_id).order_by(*key))
    return [dict(row) for row in rows.mappings()]
