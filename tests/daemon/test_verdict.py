"""The end of a run: what is promoted, held or rejected, and that nothing of it is lost or half done."""

import json

import pytest

from daemon.publish import verify_folder
from daemon.tick import tick
from schema import failpoints
from schema.audit import audit
from schema.evaluations import fetch_evaluations
from schema.jobs import add_job, fetch_job
from schema.lines import fetch_line
from schema.runs import fetch_run, fetch_runs
from schema.versions import fetch_promotions, fetch_versions, promote
from tests.daemon.conclusions import conclude_with

BETTER, WORSE = -0.05, +0.05


@pytest.fixture
def settings(settings):
    # A base that comes from the hub: no run 0. Nothing here loads it.
    return settings.model_copy(
        update={"base_model": "some/model", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    )


def look(engine, ctx):
    with engine.connect() as conn:
        line = fetch_line(conn, "micro")
        return line, fetch_runs(conn, line.id, limit=1)[0], fetch_versions(conn, line.id), audit(conn)


def test_a_better_candidate_becomes_current(ctx, engine, rows):
    rows()

    conclude_with(ctx, BETTER)

    line, run, versions, report = look(engine, ctx)
    assert (run.state, run.reason, line.current_version) == ("promoted", "better_than_base", 1)
    assert [(one["number"], one["verdict"], one["parent"]) for one in versions] == [(1, "promoted", None)]
    assert ctx.paths.current.resolve() == ctx.paths.version(1)
    assert verify_folder(ctx.paths.version(1))["members_digest"] == run.members_digest
    assert report.by_state["trained"] == 40
    assert report.rows_unaccounted == 0
    assert "2,000" not in (ctx.paths.version(1) / "README.md").read_text()


@pytest.mark.parametrize(("change", "state"), [(0.0, "held"), (WORSE, "rejected")])
def test_a_candidate_that_is_not_better_is_kept_as_a_version_and_its_rows_wait_for_company(
    ctx, engine, rows, change, state
):
    rows()

    conclude_with(ctx, change, spread=0.04)

    line, run, versions, report = look(engine, ctx)
    assert run.state == state
    assert line.current_version is None
    assert versions[0]["verdict"] == state
    assert report.by_state["pending"] == 40
    assert not tick(ctx)
    assert ctx.live.decision == ("wait", "too_few_rows")


def test_rows_that_wait_are_claimed_beside_a_threshold_of_new_ones(ctx, engine, rows):
    rows()
    conclude_with(ctx, WORSE)
    rows()

    conclude_with(ctx, BETTER)

    _, run, _, report = look(engine, ctx)
    assert run.state == "promoted"
    assert report.by_state["trained"] == 80


def test_a_second_round_has_the_first_as_parent_and_replays_its_rows(ctx, engine, rows):
    rows()
    conclude_with(ctx, BETTER)
    rows()

    conclude_with(ctx, BETTER)

    line, run, versions, _ = look(engine, ctx)
    assert line.current_version == 2
    assert {one["number"]: one["parent"] for one in versions} == {1: None, 2: 1}
    members = ctx.paths.job(run.number)
    assert not (members / "members.jsonl").exists(), "a finished run keeps no copy of its members"


def test_a_candidate_judged_against_a_replaced_incumbent_is_held(ctx, engine, rows):
    rows()
    conclude_with(ctx, BETTER)
    rows()
    conclude_with(ctx, BETTER)
    rows()

    from tests.daemon.conclusions import bring_to_evaluating, evaluation

    run = bring_to_evaluating(ctx)
    with engine.begin() as conn:
        assert promote(conn, line_id=run.line_id, version=1, expected=2, actor="somebody", reason="back")
    text = evaluation(BETTER, models=("base", "incumbent")).model_dump_json()
    (ctx.paths.job(run.number) / "evaluation.json").write_text(text)
    assert tick(ctx)

    line, run, _, report = look(engine, ctx)
    assert (run.state, run.reason, line.current_version) == ("held", "incumbent_changed", 1)
    assert report.rows_unaccounted == 0


@pytest.mark.parametrize(
    "point", ["publish.before_rename", "publish.after_rename", "publish.before_promote", "publish.after_promote"]
)
def test_a_publication_that_breaks_off_anywhere_is_finished_by_the_next_tick(ctx, engine, rows, point):
    rows()
    failpoints.arm({failpoints.ENVIRONMENT_VARIABLE: f"{point}=raise"}, "tiny")

    with pytest.raises(failpoints.FailpointHit):
        conclude_with(ctx, BETTER)
    failpoints.arm({}, "tiny")
    tick(ctx)

    line, run, versions, report = look(engine, ctx)
    assert (run.state, line.current_version) == ("promoted", 1)
    assert [one["number"] for one in versions] == [1]
    assert [path.name for path in ctx.paths.versions.iterdir()] == ["0001"]
    assert ctx.paths.current.resolve() == ctx.paths.version(1)
    assert report.rows_unaccounted == 0
    assert json.loads(ctx.paths.state_file.read_text())["current_version"] == 1


def test_the_figures_of_an_evaluation_are_kept_by_language_and_unit(ctx, engine, rows):
    rows()

    conclude_with(ctx, BETTER)

    _, run, _, _ = look(engine, ctx)
    with engine.connect() as conn:
        figures = fetch_evaluations(conn, run.id)
    whole = {one["model"]: one["value"] for one in figures if not one["language"] and not one["unit"]}
    assert whole["candidate"] < whole["base"]
    assert {one["language"] for one in figures} == {"", "python"}
    assert len({one["unit"] for one in figures}) == 25


def test_a_promotion_records_who_and_why(ctx, engine, rows):
    rows()

    conclude_with(ctx, BETTER)

    line, *_ = look(engine, ctx)
    with engine.connect() as conn:
        (promotion,) = fetch_promotions(conn, line.id)
    assert (promotion["actor"], promotion["version"], promotion["previous"]) == ("gate", 1, None)
    assert "better_than_base" in promotion["reason"]


def test_a_request_trains_on_fewer_rows_than_the_threshold_once(make_context, settings, engine, rows):
    ctx = make_context(settings.model_copy(update={"threshold_rows": 1000}))
    rows()
    assert not tick(ctx)

    with engine.begin() as conn:
        job = add_job(conn, fetch_line(conn, "micro").id, forced=True, asked_by="tests")
    assert tick(ctx)

    with engine.connect() as conn:
        line = fetch_line(conn, "micro")
        run = fetch_run(conn, line_id=line.id, number=1)
        answered = fetch_job(conn, line.id, job.id)
    assert run is not None
    assert (answered.state, answered.run) == ("running", 1)


def test_a_second_daemon_waits_and_says_so(ctx, make_context, settings):
    assert not tick(ctx)
    second = make_context(settings, "second")

    assert not tick(second)
    assert second.live.decision == ("wait", "busy")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"min_test_units": 50}, "too_few_held_out"), ({"threshold_rows": 41}, "too_few_rows"), ({}, None)],
)
def test_it_waits_and_says_for_what(make_context, settings, rows, changes, reason):
    ctx = make_context(settings.model_copy(update=changes))
    rows()

    worked = tick(ctx)

    assert worked == (reason is None)
    assert ctx.live.decision == (("wait", reason) if reason else ("train", "threshold_reached"))
