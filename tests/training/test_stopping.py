"""When a run stops early: tables of validation losses, and that the default settings leave it evaluations enough."""

import dataclasses
from collections.abc import Sequence

import pytest

from daemon.config import TrainingSettings
from daemon.job import Job
from daemon.training.progress import Plan, Progress
from daemon.training.rows import PackedRows
from daemon.training.stopping import judge
from daemon.training.train import make_plan

DEFAULTS = TrainingSettings()


def plan_of(num_rows: int, settings: TrainingSettings = DEFAULTS) -> Plan:
    """Return the plan of a run with so many packed sequences."""
    job = Job(line="l", run=1, kind="adapter", seed=1, settings=settings, device="cpu", base="b")
    return make_plan(job, PackedRows([[]] * num_rows), settings.micro_batch, flat=False)


def follow(losses: Sequence[float], plan: Plan) -> tuple[int | None, int | None]:
    """Return the evaluation after which a run with these losses stops, None where it does not, and its best one."""
    plan, progress = dataclasses.replace(plan, num_steps=len(losses)), Progress()
    for number, loss in enumerate(losses):
        judge(progress, plan, number, loss)
        if progress.stopped_early:
            return number, progress.best_step
    return None, progress.best_step


@pytest.mark.parametrize(
    ("name", "losses", "stop", "best"),
    [
        ("falls to its end", [2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.2], None, 8),
        ("falls to its end, unsteadily", [2.0, 1.9, 1.95, 1.85, 1.9, 1.8, 1.85, 1.75, 1.8], None, 7),
        ("rises from the start", [2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6, 2.7, 2.8], 3, 0),
        ("falls, then rises", [2.0, 1.8, 1.7, 1.75, 1.8, 1.9, 2.0, 2.1, 2.2], 6, 2),
        ("falls, then stays", [2.0, 1.8, 1.8, 1.8, 1.8, 1.8, 1.8, 1.8, 1.8], 5, 1),
        ("falls by less than counts", [2.0, 1.9999, 1.9998, 1.9997, 1.9996, 1.9995, 1.9994], 3, 3),
        ("one bad evaluation in a fall", [2.0, 1.9, 3.0, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3], None, 8),
        ("two good ones, far apart, in a plateau", [2.0, 2.0, 1.7, 2.0, 2.0, 1.7, 2.0, 2.0, 2.0], 3, 2),
        ("one lucky evaluation, then a real fall", [2.0, 1.5, 1.95, 1.9, 1.85, 1.8, 1.75, 1.7, 1.65], None, 1),
    ],
)
def test_it_stops_where_the_smoothed_loss_falls_no_more(
    name: str, losses: list[float], stop: int | None, best: int
) -> None:
    assert follow(losses, plan_of(200)) == (stop, best), name


def evaluations_of(plan: Plan) -> list[int]:
    """Return the steps that are evaluated."""
    return sorted({0, plan.num_steps, *range(0, plan.num_steps, plan.eval_every)})


# Rows of the threshold make about 13 steps of 65,536 tokens; the smallest run that `codelupe plan` lets pass makes 8.
@pytest.mark.parametrize("num_steps", [8, 13, 15, 16, 60, 799, 800, 5000])
def test_with_the_default_settings_a_run_that_gets_worse_is_stopped_in_time(num_steps: int) -> None:
    plan = plan_of(num_steps * DEFAULTS.micro_batch * DEFAULTS.accumulation)
    assert plan.num_steps == num_steps
    steps, progress = evaluations_of(plan), Progress()
    assert len(steps) >= 9
    for step in steps:
        judge(progress, plan, step, 2.0 + abs(step - num_steps / 4) / num_steps)  # best at a quarter
        if progress.stopped_early:
            break
    assert progress.stopped_early
    assert step <= 0.85 * num_steps
    assert abs((progress.best_step or 0) - num_steps / 4) <= plan.eval_every
