"""Every few rounds an adapter is made from the base again: when, on which rows, and that the gate decides about it."""

import pytest

from daemon.job import Failure, Job
from daemon.reports import describe_run
from daemon.tick import tick
from schema.audit import audit
from schema.decisions import fetch_decisions
from schema.lines import fetch_line
from schema.runs import fetch_runs
from tests.daemon.conclusions import evaluation
from tests.daemon.fake_child import BETTER, FakeChild, let_back_off_pass

NO_BETTER = 0.0


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 40, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes | {"consolidate_every": 2, "bootstrap_rounds": 200})


@pytest.fixture
def child(monkeypatch):
    child = FakeChild()
    monkeypatch.setattr("daemon.rounds.run_child", child)
    return child


@pytest.fixture
def run_rounds(ctx, rows, child):
    """Store new rows and do what there is to do, so many times."""

    def run(num):
        for _ in range(num):
            rows()
            while tick(ctx):
                pass

    return run


@pytest.fixture
def look(engine, settings):
    """Return the runs, oldest first, as `runs show` tells them, the line, the accounts and the decisions."""

    def fetch():
        with engine.connect() as conn:
            line = fetch_line(conn, settings.line)
            told = [describe_run(conn, run) for run in reversed(fetch_runs(conn, line.id, limit=20))]
            return told, line, audit(conn), fetch_decisions(conn, line.id, limit=20)

    return fetch


def job_of(ctx, run):
    return Job.model_validate_json((ctx.paths.job(run["run"]) / "job.json").read_bytes())


def test_after_so_many_rounds_one_begins_at_the_base_with_rows_of_all_and_the_next_continue_it(run_rounds, look, ctx):
    run_rounds(4)

    runs, line, report, decisions = look()
    third = runs[2]
    assert [run["kind"] for run in runs] == ["adapter", "adapter", "consolidation", "adapter"]
    assert (third["state"], third["parent"], line.current_version) == ("promoted", 2, 4)
    assert (third["rows"], third["retained_rows"], third["replayed_rows"]) == (40, 80, 0)
    job = job_of(ctx, third)
    assert (job.incumbent, job.continued) == (ctx.paths.version(2), None)
    assert job_of(ctx, runs[3]).continued == ctx.paths.version(3)
    assert (report.by_state["trained"], report.rows_unaccounted) == (160, 0)
    decided = next(one for one in decisions if one["verdict"] == "consolidate")
    assert (decided["reason"], decided["inputs"]["num_rounds"]) == ("rounds_reached", 2)
    card = (ctx.paths.version(3) / "README.md").read_text()
    assert "a consolidation (a new adapter of the base, judged against version 2), on 40 new rows and 80" in card


@pytest.mark.parametrize(("change", "state"), [(NO_BETTER, "held"), (-BETTER, "rejected")])
def test_one_that_is_not_better_leaves_its_new_rows_to_an_ordinary_round_at_once(
    run_rounds, look, child, ctx, change, state
):
    child.change = lambda job: change if job.fresh else BETTER

    run_rounds(3)

    runs, line, report, _ = look()
    assert [(run["kind"], run["state"]) for run in runs[2:]] == [("consolidation", state), ("adapter", "promoted")]
    assert (runs[3]["rows"], runs[3]["parent"]) == (40, 2)
    assert job_of(ctx, runs[3]).continued == ctx.paths.version(2)
    assert line.current_version == 4
    assert (report.by_state["trained"], report.rows_unaccounted) == (120, 0)


def test_one_that_fails_is_not_tried_again_before_its_next_turn_and_starts_no_search(
    run_rounds, look, child, engine, ctx, settings
):
    child.fails = lambda items: Failure(reason="nan", message="", data_caused=True) if len(items) > 60 else None
    run_rounds(3)
    let_back_off_pass(engine)
    while tick(ctx):
        pass

    runs, _, report, _ = look()
    assert [(run["kind"], run["state"]) for run in runs[2:]] == [("consolidation", "failed"), ("adapter", "promoted")]
    assert (report.by_state["trained"], report.by_state["quarantined"], report.rows_unaccounted) == (120, 0, 0)


def test_a_round_that_would_pay_new_code_with_earlier_code_is_held_and_the_next_begins_at_the_base(
    run_rounds, look, child
):
    def new_units(job):
        gained = evaluation(-1.0, models=("base", "incumbent")).items if job.run == 2 else []
        return [item.model_copy(update={"unit": f"new_{item.unit}"}) for item in gained]

    child.new_units, child.change = new_units, lambda job: 0.03 if job.run == 2 else BETTER
    run_rounds(3)

    runs, _, report, decisions = look()
    assert [(run["kind"], run["state"], run["reason"]) for run in runs[1:]] == [
        ("adapter", "held", "old_code_regressed"),
        ("consolidation", "promoted", "better_than_incumbent"),
    ]
    assert (runs[1]["gate"]["num_old_units"], round(runs[1]["gate"]["old_regression"], 3)) == (24, 0.015)
    assert (runs[2]["rows"], runs[2]["retained_rows"]) == (80, 40)
    assert (report.by_state["trained"], report.rows_unaccounted) == (120, 0)
    assert "old_code_regressed" in [one["reason"] for one in decisions if one["verdict"] == "consolidate"]


@pytest.mark.parametrize(("limit", "kind"), [(0.02, "consolidation"), (0.03, "adapter")])
def test_it_comes_before_its_turn_where_earlier_code_costs_more_than_it_did(
    make_context, settings, rows, child, look, limit, kind
):
    changes = {"consolidate_every": 8, "consolidate_regression": limit}
    ctx = make_context(settings.model_copy(update=changes))
    child.change = lambda job: BETTER if job.run == 1 else -0.001  # 2.5 % more bits than the first candidate
    for _ in range(3):
        rows()
        while tick(ctx):
            pass

    runs, *_ = look()
    assert [run["kind"] for run in runs] == ["adapter", "adapter", kind]
