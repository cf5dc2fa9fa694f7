"""A round that fails: its rows go back, the incumbent stays, everybody can see why, and the next try waits."""

import json
import sys
import typing
from datetime import UTC, datetime
from types import SimpleNamespace

import psycopg
import pytest
from prometheus_client import generate_latest

from daemon.job import Failure
from daemon.reports import describe_run
from daemon.status import Reporter
from daemon.tick import tick
from monitoring.metrics import FAILURE_REASONS, REGISTRY
from schema import failpoints
from schema.audit import audit
from schema.decisions import fetch_decisions
from schema.lines import fetch_line
from schema.runs import claim_run, fetch_runs
from tests.daemon.conclusions import conclude_with
from tests.daemon.fake_child import BETTER, FakeChild, let_back_off_pass, loop_of
from tests.waiting import wait_for

REASONS = typing.get_args(Failure.model_fields["reason"].annotation)
CAUSED_BY_DATA = ("nan", "loss_spike", "data", "exception")


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes | {"back_off_s": 300, "bootstrap_rounds": 200})


@pytest.fixture
def child(monkeypatch):
    child = FakeChild()
    monkeypatch.setattr("daemon.rounds.run_child", child)
    return child


def failing(reason="exception", message="it broke", **values):
    return Failure(reason=reason, message=message, **({"data_caused": False} | values))


def look(engine):
    with engine.connect() as conn:
        line = fetch_line(conn, "micro")
        return line, fetch_runs(conn, line.id, limit=1)[0], fetch_decisions(conn, line.id, limit=5), audit(conn)


def health_of(ctx):
    return Reporter(ctx, SimpleNamespace(daemon=ctx.settings)).health()


def count_failed(reason):
    return REGISTRY.get_sample_value("codelupe_runs_failed_total", {"reason": reason})


def test_every_reason_of_a_failure_is_counted_from_zero():
    assert set(FAILURE_REASONS) == {*REASONS, "damaged", "interrupted", "cancelled"}
    assert b'codelupe_runs_failed_total{reason="device"}' in generate_latest(REGISTRY)


@pytest.mark.parametrize("reason", REASONS)
def test_a_round_that_fails_releases_its_rows_keeps_the_incumbent_and_says_why(ctx, engine, rows, child, reason):
    rows()
    conclude_with(ctx, BETTER)
    rows()
    child.fails = lambda _: failing(reason, f"{reason}!", data_caused=reason in CAUSED_BY_DATA, traceback="Traceback …")
    counted = count_failed(reason)

    loop_of(ctx).run()

    line, run, decisions, report = look(engine)
    assert (run.number, run.state, run.reason, line.current_version) == (2, "failed", reason, 1)
    assert (report.by_state["pending"], report.by_state["trained"], report.rows_unaccounted) == (40, 40, 0)
    failed = next(one for one in decisions if one["verdict"] == "failed")
    assert (failed["reason"], failed["inputs"]["message"]) == (reason, f"{reason}!")
    assert run.figures["failure"]["traceback"] == "Traceback …"
    assert run.figures["failure"]["data_caused"] == (reason in CAUSED_BY_DATA)
    assert health_of(ctx)["details"]["last_failure"] == f"{reason}: {reason}!"
    assert count_failed(reason) == counted + 1
    assert ctx.paths.current.resolve() == ctx.paths.version(1)


def test_the_loop_starts_nothing_before_the_back_off_is_over_and_waits_twice_as_long_each_time(
    ctx, engine, rows, child
):
    rows()
    child.fails = lambda _: failing("device")
    loop, waits = loop_of(ctx), []

    for num_runs in (1, 2, 3):
        for _ in range(5):
            loop.run()
        line, run, *_ = look(engine)
        assert run.number == num_runs
        assert ctx.live.decision == ("wait", "backing_off")
        waits.append((line.not_before - datetime.now(UTC)).total_seconds())
        let_back_off_pass(engine)

    assert [round(wait, -2) for wait in waits] == [300, 600, 1200]
    assert health_of(ctx)["reasons"][0] == "runs_failing"


def test_a_restarted_daemon_shows_the_last_failure_until_a_round_ends_otherwise(
    ctx, make_context, settings, engine, rows, child
):
    rows()
    child.fails = lambda _: failing("disk", "no space left on /data")
    loop_of(ctx).run()
    ctx.leadership.give_back()
    again = make_context(settings, "again")

    tick(again)
    told = health_of(again)["details"]["last_failure"]
    let_back_off_pass(engine)
    child.fails = lambda _: None
    loop_of(again).run()

    assert told == "disk: no space left on /data"
    assert "last_failure" not in health_of(again).get("details", {})


def test_what_a_failure_says_is_kept_whatever_characters_and_length_it_has(ctx, engine, rows, child):
    rows()
    message = "\0 \udcff" + "m" * 5000
    error = {"reason": "data", "message": message, "data_caused": True, "traceback": "t" * 50_000 + "the end"}
    child.fails = lambda _: SimpleNamespace(model_dump_json=lambda: json.dumps(error))  # as the child writes it

    loop_of(ctx).run()

    _, run, *_ = look(engine)
    assert run.state == "failed"
    assert run.figures["failure"]["message"].startswith("\N{REPLACEMENT CHARACTER}")
    assert run.figures["failure"]["traceback"].endswith("the end")
    assert len(json.dumps(run.figures)) < 10_000
    with engine.connect() as conn:
        assert describe_run(conn, run)["failure"]["reason"] == "data"


@pytest.mark.parametrize("point", ["run.before_release", "run.after_release"])
def test_a_failure_that_breaks_off_is_closed_once(ctx, engine, rows, child, point):
    rows()
    child.fails = lambda _: failing("device")
    failpoints.arm({failpoints.ENVIRONMENT_VARIABLE: f"{point}=raise"}, "tiny")
    loop = loop_of(ctx)

    loop.run()
    failpoints.arm({}, "tiny")
    loop.run()

    line, run, _, report = look(engine)
    assert (run.number, run.state, line.num_failures) == (1, "failed", 1)
    assert (report.by_state["pending"], report.rows_unaccounted) == (40, 0)
    assert ctx.live.run is None
    assert ctx.live.finished.uuid == run.uuid


@pytest.mark.parametrize("name", ["result.json", "evaluation.json"])
@pytest.mark.parametrize("damaged", [b"", b'{"steps": 1'], ids=["empty", "cut short"])
def test_what_a_child_left_damaged_is_made_again(ctx, engine, rows, child, name, damaged):
    rows()
    states = {"result.json": "training", "evaluation.json": "evaluating"}
    while ctx.live.run is None or ctx.live.run.state != states[name]:
        assert tick(ctx)
    (ctx.paths.job(ctx.live.run.number) / name).write_bytes(damaged)

    loop_of(ctx).run()

    assert look(engine)[1].state == "promoted"
    assert ctx.live.step_error is None


# ---- attempts


CHECKPOINT = {"event": "checkpoint", "seconds": 0.1, "step": 5, "bytes": 100}


@pytest.fixture
def in_training(ctx, rows):
    rows()
    assert tick(ctx)
    assert tick(ctx)
    return ctx


def interrupt(ctx, monkeypatch, *events):
    """Let the daemon die while its child works; the child has told these events, and the daemon looked round."""

    def dies(_verb, _job, child, **_values):
        for event in events:
            child.on_event(event)
        child.obey()
        raise KeyboardInterrupt

    monkeypatch.setattr("daemon.rounds.run_child", dies)
    with pytest.raises(KeyboardInterrupt):
        tick(ctx)


@pytest.mark.parametrize(("events", "attempt"), [((), 2), ((CHECKPOINT,), 0)])
def test_only_interruptions_without_a_new_checkpoint_count(in_training, engine, monkeypatch, events, attempt):
    interrupt(in_training, monkeypatch)

    interrupt(in_training, monkeypatch, *events)

    wait_for(lambda: look(engine)[1].attempt == attempt)


def test_a_run_that_is_interrupted_too_often_without_progress_is_given_up(in_training, engine, monkeypatch):
    for _ in range(in_training.settings.max_run_attempts):
        interrupt(in_training, monkeypatch)

    tick(in_training)

    _, run, _, report = look(engine)
    assert (run.state, run.reason) == ("failed", "interrupted")
    assert (report.by_state["pending"], report.rows_unaccounted) == (40, 0)


@pytest.mark.parametrize(("events", "attempt"), [((), 1), ((CHECKPOINT,), 0)])
def test_a_stop_in_good_order_is_no_attempt_and_keeps_the_progress(in_training, engine, monkeypatch, events, attempt):
    interrupt(in_training, monkeypatch)

    def stops(_verb, _job, child, **_values):
        for event in events:
            child.on_event(event)
        return "stopped"

    monkeypatch.setattr("daemon.rounds.run_child", stops)
    assert not tick(in_training)

    assert look(engine)[1].attempt == attempt


# ---- an end that nobody saw


@pytest.fixture
def break_commit(engine, monkeypatch):
    """Let the n-th COMMIT from now fail as if the connection were cut, before or after the server did it."""
    original = engine.dialect.do_commit

    def arm(nth, when):
        left = [nth]

        def do_commit(connection):
            left[0] -= 1
            if left[0] or when == "after":
                original(connection)
            if not left[0]:
                raise psycopg.OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(engine.dialect, "do_commit", do_commit)

    yield arm
    monkeypatch.setattr(engine.dialect, "do_commit", original)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("ending", ["failed", "promoted"])
def test_a_commit_of_unknown_outcome_that_closes_a_run_is_looked_up(
    ctx, engine, rows, child, break_commit, ending, when
):
    rows()
    if ending == "failed":
        child.fails = lambda _: failing("device")
    closes = "daemon.failures.release_run" if ending == "failed" else "daemon.verdict.save_evaluations"
    loop = loop_of(ctx)
    with pytest.MonkeyPatch.context() as patch:
        module, _, name = closes.rpartition(".")
        original = getattr(sys.modules[module], name)
        # The transaction that closes the run begins here: its COMMIT is the next one.
        patch.setattr(closes, lambda *args, **values: (original(*args, **values), break_commit(1, when))[0])
        loop.run()
    assert ctx.live.database_error is not None
    assert ctx.live.finished is None
    ended = closed_runs(ending)

    loop.run()

    _, run, _, report = look(engine)
    assert (run.number, run.state) == (1, ending)
    assert ctx.live.finished.uuid == run.uuid
    assert ctx.live.run is None
    assert closed_runs(ending) == ended + 1
    assert report.rows_unaccounted == 0
    assert not (ctx.paths.job(1) / "members.jsonl").exists()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_claim_of_unknown_outcome_is_found_or_made_again(ctx, engine, rows, child, break_commit, when):
    rows()
    loop = loop_of(ctx)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "daemon.tick.claim_run", lambda *args, **values: (claim_run(*args, **values), break_commit(1, when))[0]
        )
        loop.run()

    loop.run()

    _, run, _, report = look(engine)
    assert (run.number, run.state) == (1, "promoted")
    assert (report.by_state["trained"], report.rows_unaccounted) == (40, 0)


def closed_runs(outcome):
    return REGISTRY.get_sample_value("codelupe_runs_total", {"outcome": outcome})


@pytest.mark.parametrize(("events", "attempt"), [((), 1), ((CHECKPOINT,), 0)])
def test_a_killed_child_is_an_interruption_and_its_run_stays_open(in_training, engine, monkeypatch, events, attempt):
    def is_killed(_verb, _job, child, **_values):
        for event in events:
            child.on_event(event)
        return "killed"

    monkeypatch.setattr("daemon.rounds.run_child", is_killed)

    assert not tick(in_training)

    run = look(engine)[1]
    assert (run.state, run.attempt) == ("training", attempt)
