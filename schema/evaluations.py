"""What the gate measured: one figure per model, set, metric, language and unit of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.tables import Evaluation, TrainingRun


@dataclass(frozen=True, slots=True)
class LastEvaluation:
    """What the last judged candidate of a line showed."""

    rows: list[dict[str, Any]]
    gain: tuple[float, float, float] | None
    """The reference's bits per byte minus the candidate's: low, mean, high; None where they could not be computed."""


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


def fetch_units(conn: sa.Connection, line_id: int, version: int) -> set[str]:
    """Fetch the units that a version was judged on as the candidate."""
    run = sa.select(TrainingRun.id).where(TrainingRun.line_id == line_id, TrainingRun.version == version)
    units = sa.select(Evaluation.unit).where(Evaluation.run_id.in_(run), Evaluation.unit != "").distinct()
    return set(conn.execute(units).scalars())


def fetch_last_evaluation(conn: sa.Connection, line_id: int) -> LastEvaluation | None:
    """Fetch the figures of a line's last run that came to the gate, or None before the first."""
    judged = sa.exists().where(Evaluation.run_id == TrainingRun.id)
    newest = sa.select(TrainingRun.id, TrainingRun.figures).where(TrainingRun.line_id == line_id, judged)
    run = conn.execute(newest.order_by(TrainingRun.number.desc()).limit(1)).one_or_none()
    if run is None:
        return None
    gate = run.figures.get("gate", {})
    low, mean, high = (gate.get(name) for name in ("high", "delta", "low"))
    gain = None if low is None or mean is None or high is None else (-low, -mean, -high)
    return LastEvaluation(fetch_evaluations(conn, run.id), gain)
