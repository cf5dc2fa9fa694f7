"""What people and scripts ask the database: the same words in tables and in JSON."""

import json
import shutil
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from daemon.forecast import plan
from daemon.job import Failure
from daemon.models import models
from daemon.reports import runs, why
from daemon.tick import tick
from monitoring.config import MonitoringSettings
from schema.config import DatabaseSettings
from tests.daemon.conclusions import conclude_with
from tests.daemon.fake_child import FakeChild, loop_of

RUN_KEYS = {"state", "version", "parent", "bits_per_byte", "rows", "tokens", "seconds", "tokens_per_s", "digests"}
PLAN_KEYS = {"rows", "tokens", "steps", "evaluations", "peak_bytes", "disk_bytes", "hours"}


@pytest.fixture
def settings(settings):
    changes = {"base_model": "Qwen/Qwen2.5-Coder-0.5B", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes)


@pytest.fixture
def ask(ctx, settings, database_url):
    """Run a command as the front door would; return what it printed and its exit status."""
    everything = SimpleNamespace(
        home=ctx.paths.home,
        profile="tiny",
        database=DatabaseSettings(database_url=SecretStr(database_url)),
        monitoring=MonitoringSettings(),
        daemon=settings,
    )

    def run(command, *words):
        done = CliRunner().invoke(command, words, obj=everything)
        return done.output, done.exit_code

    return run


def test_why_tells_the_decisions_with_their_inputs(ctx, ask, rows):
    tick(ctx)
    rows()
    conclude_with(ctx, -0.05)

    report = json.loads(ask(why, "--json")[0])
    text, _ = ask(why)

    reasons = [one["reason"] for one in report["decisions"]]
    assert reasons[-1] == "too_few_rows"
    assert report["decisions"][-1]["inputs"]["threshold"] == 10
    assert {"better_than_base", "threshold_reached"} <= set(reasons)
    assert "better_than_base" in text


def test_why_says_how_many_held_out_units_are_missing(make_context, settings, ask, rows, caplog):
    rows()
    caplog.set_level("INFO", logger="daemon.live")

    tick(make_context(settings.model_copy(update={"min_test_units": 11})))

    assert "3 held-out units are missing: 8 of 11" in " ".join(ask(why)[0].split())
    assert "too_few_held_out (3 held-out units are missing: 8 of 11)" in caplog.text


def test_a_failed_run_is_shown_with_its_reason_and_traceback(ctx, ask, rows, monkeypatch):
    rows()
    child = FakeChild()
    child.fails = lambda _: Failure(reason="nan", message="no number", data_caused=True, traceback="Traceback: here")
    monkeypatch.setattr("daemon.rounds.run_child", child)
    loop_of(ctx).run()

    run = json.loads(ask(runs, "show", "--json")[0])
    text, told = ask(runs, "show")[0], ask(why)[0]

    assert run["failure"] == {
        "reason": "nan",
        "message": "no number",
        "data_caused": True,
        "traceback": "Traceback: here",
    }
    assert "no number" in text
    assert "Traceback: here" in text
    assert "message=no number" in " ".join(told.split())


def test_what_the_child_notes_is_a_line_of_the_daemon_s_log(ctx, rows, monkeypatch, caplog):
    rows()
    child = FakeChild()
    child.events = [{"event": "note", "note": "tracker_failed", "message": "tensorboard is not installed"}]
    monkeypatch.setattr("daemon.rounds.run_child", child)
    caplog.set_level("INFO", logger="daemon.live")
    loop_of(ctx).run()

    told = next(record for record in caplog.records if getattr(record, "event", "") == "child_note")
    assert (told.note, told.run) == ("tracker_failed", 1)
    assert "tensorboard is not installed" in told.message


def test_a_run_and_its_version_are_shown_with_what_the_gate_saw(ctx, ask, rows):
    rows()
    conclude_with(ctx, -0.05)

    run = json.loads(ask(runs, "show", "latest", "--json")[0])
    model = json.loads(ask(models, "show", "current", "--json")[0])

    assert run.keys() >= RUN_KEYS
    assert model.keys() >= RUN_KEYS
    assert (run["state"], run["version"], run["parent"], run["rows"]) == ("promoted", 1, None, 40)
    assert run["bits_per_byte"]["candidate"] < run["bits_per_byte"]["base"]
    assert run["bits_per_byte"]["incumbent"] is None
    assert model["verified"]
    assert model["digests"]["members"] == run["digests"]["members"]


def test_a_version_whose_files_were_changed_is_shown_as_damaged(ctx, ask, rows):
    rows()
    conclude_with(ctx, -0.05)
    (ctx.paths.version(1) / "adapter_model.safetensors").write_bytes(b"other")

    model = json.loads(ask(models, "show", "current", "--json")[0])

    assert not model["verified"]
    assert "adapter_model.safetensors" in model["damage"]


def test_a_rollback_is_recorded_with_its_reason_and_moves_current(ctx, ask, rows):
    for _ in range(2):
        rows()
        conclude_with(ctx, -0.05)

    text, status = ask(models, "rollback", "1", "--reason", "it writes tabs")

    listed = json.loads(ask(models, "list", "--json")[0])
    assert status == 0, text
    assert ctx.paths.current.resolve() == ctx.paths.version(1)
    assert [one["number"] for one in listed["versions"] if one["current"]] == [1]
    assert "it writes tabs" in [one["reason"] for one in listed["promotions"]]


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        (models, ("rollback", "2", "--reason", "x"), "is current already"),
        (models, ("rollback", "9", "--reason", "x"), "no version '9'"),
        (models, ("rollback", "1", "--reason", "x"), "restore"),
        (models, ("show", "9"), "no version '9'"),
        (runs, ("show", "9"), "no run '9'"),
        (runs, ("show", "last"), "no run 'last'"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_value(ctx, ask, rows, command, words, said):
    for _ in range(2):
        rows()
        conclude_with(ctx, -0.05)
    shutil.rmtree(ctx.paths.version(1))

    text, status = ask(command, *words)

    assert status == 1
    assert said in text


def test_two_versions_are_compared(ctx, ask, rows):
    for _ in range(2):
        rows()
        conclude_with(ctx, -0.05)

    text, _ = ask(models, "diff", "1", "2")

    assert '+ "parent": 1' in text


def test_lists_name_every_run_and_version(ctx, ask, rows):
    rows()
    conclude_with(ctx, -0.05)

    listed = json.loads(ask(runs, "list", "--json")[0])

    assert [one["run"] for one in listed["runs"]] == [1]
    assert "promoted" in ask(runs, "list")[0]
    assert "promoted" in ask(models, "list")[0]
    assert "promoted" in ask(runs, "show")[0]


def test_the_plan_says_what_comes_and_what_does_not_work(ask, rows):
    empty, status = ask(plan, "--json")
    assert status == 1
    assert any("held-out test units" in problem for problem in json.loads(empty)["problems"])

    rows()
    forecast = json.loads(ask(plan, "--json")[0])

    assert forecast.keys() >= PLAN_KEYS
    assert forecast["rows"] == 40
    assert "steps" in ask(plan)[0]
