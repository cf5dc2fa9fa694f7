"""Ticks that start nothing: what the operator asked for, what is missing, who else is at work."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

import codelupe
from daemon.config import DaemonSettings
from daemon.leadership import Leadership
from daemon.loop import ExitCode, Loop
from daemon.service import open_own_line
from daemon.shapes import UnfitBaseError
from daemon.status import Reporter
from daemon.supervise import read_failure, run_child
from daemon.tick import tick
from schema.audit import audit
from schema.database import fetch_now
from schema.decisions import fetch_decisions
from schema.jobs import add_job, cancel_all, fetch_job
from schema.lines import fetch_line, set_paused
from schema.runs import fetch_open_run, fetch_runs
from schema.tables import TrainingRun
from tests.daemon.conclusions import bring_to_evaluating, conclude_with, evaluation
from tests.waiting import DEADLINE_S, wait_for

BETTER = -0.05


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes | {"back_off_s": 300})


def line_of(engine):
    with engine.connect() as conn:
        return fetch_line(conn, "micro")


def last_run(engine):
    with engine.connect() as conn:
        return fetch_runs(conn, fetch_line(conn, "micro").id, limit=1)[0]


def test_what_fits_no_device_claims_nothing_and_runs_open_once_it_is_set_as_the_reason_says(
    make_context, settings, engine, rows
):
    changes = {"base_model": "Qwen/Qwen2.5-Coder-7B", "lora_rank": 512, "lora_alpha": 512}
    ctx = make_context(settings.model_copy(update=changes))
    reporter = Reporter(ctx, codelupe.Settings())
    rows()

    assert [tick(ctx), tick(ctx)] == [False, False]

    health = reporter.health()
    assert (health["status"], "does_not_fit" in health["reasons"]) == ("degraded", True)
    assert "12.8 can be used on this cpu: set CODELUPE_LORA_RANK=64" in health["details"]["memory"]
    with engine.connect() as conn:
        (decision,) = fetch_decisions(conn, line_of(engine).id, limit=9)
        assert (fetch_open_run(conn, line_of(engine).id), audit(conn).by_state["pending"]) == (None, 40)
    assert (decision["reason"], decision["repeated"]) == ("does_not_fit", 2)
    assert decision["inputs"]["misfit"] == health["details"]["memory"]
    ctx.leadership.give_back()
    mended = make_context(settings.model_copy(update=changes | {"lora_rank": 64}), "mended")
    assert tick(mended)
    assert "does_not_fit" not in Reporter(mended, codelupe.Settings()).health()["reasons"]


@pytest.mark.parametrize(
    ("config", "is_refused"),
    [
        ('{"model_type": "gpt2", "n_head": 12}', True),
        ('{"model_type": "bloom", "n_head": 12}', True),
        ('{"model_type": "qw', False),  # damaged: who loads it says how
        (None, False),  # on the hub: its files may not be here
    ],
)
def test_a_line_is_not_opened_on_a_base_that_no_adapter_can_be_trained_on(ctx, engine, tmp_path, config, is_refused):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    base = "some/model" if config is None else str(tmp_path)
    other = replace(ctx, settings=ctx.settings.model_copy(update={"line": "other", "base_model": base}))
    with pytest.raises(UnfitBaseError, match=f"CODELUPE_BASE_MODEL={base}") if is_refused else nullcontext():
        open_own_line(other)

    with engine.connect() as conn:
        assert (fetch_line(conn, "other") is None) == is_refused


def test_a_run_that_is_open_waits_while_the_line_is_paused(ctx, engine, rows):
    rows()
    assert tick(ctx)
    with engine.begin() as conn:
        set_paused(conn, line_of(engine).id, True)

    assert not tick(ctx)

    assert ctx.live.decision == ("wait", "paused")
    assert last_run(engine).state == "claimed"


def test_a_run_is_cancelled_in_any_state_and_its_rows_go_back(ctx, engine, rows):
    rows()
    assert tick(ctx)
    with engine.begin() as conn:
        cancel_all(conn, line_of(engine).id)

    tick(ctx)

    run = last_run(engine)
    assert (run.state, run.reason) == ("failed", "cancelled")
    with engine.connect() as conn:
        assert audit(conn).by_state["pending"] == 40


def test_a_cancelled_run_is_no_failure_it_puts_the_next_one_off_by_one_back_off_and_is_not_counted(ctx, engine, rows):
    rows()
    for _ in range(2):
        with engine.begin() as conn:
            conn.execute(sa.text("UPDATE lines SET not_before = now()"))
        assert tick(ctx)
        with engine.begin() as conn:
            cancel_all(conn, line_of(engine).id)
        tick(ctx)

    assert not tick(ctx)

    assert ctx.live.decision == ("wait", "backing_off")
    with engine.connect() as conn:
        wait_s = (line_of(engine).not_before - fetch_now(conn)).total_seconds()
    assert (line_of(engine).num_failures, ctx.live.last_failure) == (0, None)
    assert 0 < wait_s <= ctx.settings.back_off_s


def test_a_cancel_without_a_run_does_not_hit_the_next_one(ctx, engine, rows):
    with engine.begin() as conn:
        assert cancel_all(conn, line_of(engine).id) == (None, 0)
    rows()

    assert tick(ctx)
    assert tick(ctx)

    assert last_run(engine).state == "training"


def test_what_is_asked_for_right_after_a_cancel_is_the_next_run(ctx, engine, rows):
    rows()
    assert tick(ctx)
    with engine.begin() as conn:
        cancelled, _ = cancel_all(conn, line_of(engine).id)
        job = add_job(conn, line_of(engine).id, forced=True, asked_by="tests")

    assert tick(ctx)
    assert tick(ctx)

    assert (cancelled.number, last_run(engine).number) == (1, 2)
    with engine.connect() as conn:
        assert fetch_job(conn, line_of(engine).id, job.id).run == 2


def test_waiting_for_a_busy_device_costs_the_run_nothing(ctx, engine, rows):
    rows()
    assert tick(ctx)
    assert tick(ctx)
    assert Leadership(engine, "another line", 60).take(ctx.device.lease) is not None

    for _ in range(5):
        assert not tick(ctx)

    assert ctx.live.decision == ("wait", "device_busy")
    assert (last_run(engine).state, last_run(engine).attempt) == ("training", 0)


def test_a_damaged_incumbent_fails_the_run_and_stays(ctx, engine, rows):
    rows()
    conclude_with(ctx, BETTER)
    (ctx.paths.version(1) / "adapter_model.safetensors").write_bytes(b"other")
    rows()

    tick(ctx)
    tick(ctx)

    run = last_run(engine)
    assert (run.number, run.state, run.reason) == (2, "failed", "damaged")
    assert line_of(engine).current_version == 1
    assert line_of(engine).num_failures == 1
    assert not tick(ctx)
    assert ctx.live.decision == ("wait", "backing_off")


def test_a_version_that_is_damaged_later_is_found_by_the_hourly_look(ctx, rows):
    rows()
    conclude_with(ctx, BETTER)
    loop = Loop(ctx, once=False, exit_code=ExitCode.OK)
    loop.audit()
    whole = ctx.live.damage
    (ctx.paths.version(1) / "adapter_model.safetensors").write_bytes(b"other")

    loop.audit()

    assert whole is None
    assert "adapter_model.safetensors" in ctx.live.damage


def test_held_out_files_below_the_quality_threshold_do_not_count(make_context, settings, rows):
    ctx = make_context(settings.model_copy(update={"min_quality": 70}))
    rows(score=20.0)

    assert not tick(ctx)

    assert ctx.live.decision == ("wait", "too_few_held_out")


def test_a_new_leader_clears_what_a_dead_one_left_of_finished_runs(ctx, make_context, settings, engine, rows):
    rows()
    run = bring_to_evaluating(ctx)
    left = ctx.paths.job(run.number)
    (left / "evaluation.json").write_text(evaluation(BETTER).model_dump_json())
    tick(ctx)
    (left / "checkpoints").mkdir()
    (left / "members.jsonl").write_text("")
    ctx.leadership.give_back()

    tick(make_context(settings, "successor"))

    assert not (left / "checkpoints").exists()
    assert not (left / "members.jsonl").exists()
    assert (left / "result.json").exists()


def test_a_standby_records_that_it_waits_and_knows_the_version(ctx, make_context, settings, engine, rows):
    rows()
    conclude_with(ctx, BETTER)
    standby = make_context(settings, "standby")

    assert not tick(standby)

    assert standby.live.current_version == 1
    with engine.connect() as conn:
        assert fetch_decisions(conn, line_of(engine).id, limit=1)[0]["reason"] == "busy"


def test_a_run_that_is_open_is_the_same_for_the_next_leader(ctx, make_context, settings, engine, rows):
    rows()
    assert tick(ctx)
    ctx.leadership.give_back()

    assert tick(make_context(settings, "successor"))

    with engine.connect() as conn:
        assert fetch_open_run(conn, line_of(engine).id).state == "training"


def test_a_threshold_that_no_run_could_hold_is_refused():
    with pytest.raises(ValidationError, match="no run could start"):
        DaemonSettings(threshold_rows=10, max_rows=9)


class Caller:
    def __init__(self, order):
        self.order = order

    def obey(self):
        return self.order

    def on_event(self, event):
        pass


@pytest.mark.parametrize(("order", "outcome"), [("go_on", "failed"), ("stop", "stopped")])
def test_a_child_that_dies_on_its_way_out_has_stopped_and_not_failed(tmp_path, order, outcome):
    # Without a job.json the child cannot do anything but end.
    ended = run_child("train", tmp_path, Caller(order), stop_grace_s=DEADLINE_S)

    assert ended == outcome
    assert "job.json" in read_failure(tmp_path).message


def test_what_a_child_has_started_ends_with_it(tmp_path, monkeypatch):
    command = ["sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; exit 0"]
    monkeypatch.setattr("daemon.supervise.child_command", lambda _verb, _job: command)

    assert run_child("train", tmp_path, Caller("go_on"), stop_grace_s=DEADLINE_S) == "done"

    stat = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")

    def has_ended():
        try:
            return stat.read_text().split(")")[1].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_for(has_ended, "its end")


@pytest.mark.parametrize("change", [{"a_setting_of_tomorrow": 1}, {"patience": None}])
def test_a_run_that_another_version_claimed_goes_on(ctx, engine, rows, change):
    rows()
    assert tick(ctx)
    config = {name: value for name, value in (last_run(engine).config | change).items() if value is not None}
    with engine.begin() as conn:
        conn.execute(sa.update(TrainingRun).values(config=config))

    assert tick(ctx)

    assert last_run(engine).state == "training"
