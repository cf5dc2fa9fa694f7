"""Settings that are changed while the daemon runs: by command and over HTTP, in ticks on a real database."""

import json
import threading
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

import codelupe
from daemon.adjust import CHANGEABLE, FixedSetting, NotChanged, UnknownSetting, WrongValue, change_setting, take_changes
from daemon.clock import Alarm, start_clock
from daemon.config import DaemonSettings, settings_of
from daemon.courtesy import Courtesy
from daemon.status import Reporter
from daemon.tick import tick
from schema.decisions import fetch_decisions
from schema.lines import fetch_line
from schema.runs import fetch_open_run
from schema.setting_changes import list_changes
from tests.daemon.api_service import api_service
from tests.waiting import wait_for


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 60, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes)


@pytest.fixture
def change(engine, ctx):
    """Change a setting as an operator does."""

    def run(name, *value):
        with engine.begin() as conn:
            line = fetch_line(conn, "micro")
            told = {"actor": "alice", "reason": "because"}
            change_setting(conn, line.id, ctx.configured, name, *value, unset=not value, **told)

    return run


def last_decision(engine):
    with engine.connect() as conn:
        return fetch_decisions(conn, fetch_line(conn, "micro").id, limit=1)[0]


def test_a_change_holds_from_the_next_tick_on_and_the_decision_says_so(ctx, engine, rows, change):
    rows()
    assert not tick(ctx)
    change("threshold_rows", "30")

    assert tick(ctx)

    inputs = last_decision(engine)["inputs"]
    assert (inputs["threshold"], inputs["changed_at_run_time"]) == (30, "threshold_rows=30")


def test_what_is_unset_is_as_configured_again_and_the_history_has_both(ctx, engine, change):
    change("check_interval_s", 7)
    change("train_windows", ["sat-sun"])
    assert tick(ctx) is False
    changed = (ctx.settings.check_interval_s, ctx.settings.train_windows)
    change("check_interval_s")
    tick(ctx)

    assert changed == (7, ("sat-sun",))
    assert (ctx.settings.check_interval_s, ctx.changed) == (1, {"train_windows": ["sat-sun"]})
    with engine.connect() as conn:
        history = list_changes(conn, fetch_line(conn, "micro").id, limit=9)
    assert [(one.name, one.previous, one.value, one.is_set) for one in history] == [
        ("check_interval_s", 7, None, False),
        ("train_windows", [], ["sat-sun"], True),
        ("check_interval_s", 1, 7, True),
    ]
    assert {(one.actor, one.reason) for one in history} == {("alice", "because")}


def test_an_open_run_keeps_what_it_was_claimed_with_and_waits_in_new_quiet_hours(ctx, engine, rows, change):
    rows()
    change("threshold_rows", 30)
    assert tick(ctx)
    change("replay_share", 0.9)
    change("quiet_hours", [f"{datetime.now(UTC):%a}".lower(), "00:00-12:00", "12:00-24:00"])

    with engine.begin() as conn:
        line = fetch_line(conn, "micro")
        take_changes(ctx, conn, line.id)
        run = fetch_open_run(conn, line.id)

    assert settings_of(run.config).replay_share == ctx.configured.replay_share
    assert ctx.settings.replay_share == 0.9
    assert Courtesy(ctx).order() == "stop"


def test_what_does_not_fit_the_configuration_of_a_daemon_is_said_and_left_out(ctx, make_context, change, settings):
    change("threshold_rows", 90)
    ctx.leadership.give_back()
    other = make_context(settings.model_copy(update={"max_rows": 80}), "other")
    reporter = Reporter(other, codelupe.Settings())

    tick(other)

    health = reporter.health()
    assert other.settings.threshold_rows == 60
    assert "settings_refused" in health["reasons"]
    assert "threshold_rows (90) is above max_rows (80)" in health["details"]["settings"]
    change("threshold_rows", 70)
    tick(other)
    assert (other.settings.threshold_rows, "settings" in reporter.health().get("details", {})) == (70, False)


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("threshold_rows", 0, WrongValue, "threshold_rows: Input should be greater than or equal to 1 (given: 0)"),
        ("threshold_rows", 200_000, WrongValue, "threshold_rows (200000) is above max_rows (100000)"),
        ("quiet_hours", ["monday"], WrongValue, "'monday' in window 'monday' is no day"),
        ("max_age_hours", "soon", WrongValue, "(given: 'soon')"),
        ("lora_rank", 8, FixedSetting, "restart it with CODELUPE_LORA_RANK=…"),
        ("line", "other", FixedSetting, "restart it with CODELUPE_LINE=…"),
        ("treshold_rows", 8, UnknownSetting, "these may be changed: api_log_days, api_log_rows, back_off_s"),
    ],
)
def test_what_cannot_be_is_refused_with_the_value_and_the_fix(engine, change, name, value, error, said):
    with pytest.raises(error) as refused:
        change(name, value)

    assert said in str(refused.value)
    with engine.connect() as conn:
        assert list_changes(conn, fetch_line(conn, "micro").id, limit=9) == []


def test_what_was_not_changed_cannot_be_unset(change):
    with pytest.raises(NotChanged, match="threshold_rows was not changed at run time: it is 60, as configured"):
        change("threshold_rows")


def test_nothing_that_a_run_is_made_of_or_judged_by_can_be_changed():
    fixed = {"min_quality", "min_chars", "max_test_chars", "bootstrap_confidence", "base_model", "line", "line_lease_s"}

    assert set(DaemonSettings.model_fields) >= CHANGEABLE
    assert not CHANGEABLE & (fixed | set(codelupe.DaemonSettings.__mro__[1].model_fields))


def test_the_clock_takes_another_interval_at_once():
    ticks = []
    alarm = Alarm(threading.Event(), start_clock({"tick": (lambda: ticks.append(1), 3600)}))
    try:
        wait_for(lambda: len(ticks) == 1, "the first tick")
        alarm.retime(0.01)
        wait_for(lambda: len(ticks) > 2, "ticks at the new interval")
    finally:
        alarm.scheduler.shutdown()
    assert len(ticks) > 2


def test_over_http_a_setting_is_changed_shown_and_restored_by_who_has_the_scope(ctx, engine):
    with api_service(engine, ctx.paths.home, "micro") as caller:
        because = {"value": 500, "reason": "more often"}
        refused = [
            caller.ask("PUT", "/v1/config/threshold_rows", {"value": 0, "reason": "x"}, token="config"),
            caller.ask("PUT", "/v1/config/threshold_rows", {"value": 5}, token="config"),
            caller.ask("PUT", "/v1/config/lora_rank", because, token="config"),
            caller.ask("PUT", "/v1/config/treshold", because, token="config"),
            caller.ask("PUT", "/v1/config/threshold_rows", because, token="train"),
            caller.ask("DELETE", "/v1/config/threshold_rows", token="config"),
        ]
        done = caller.ask("PUT", "/v1/config/threshold_rows", because, token="config")
        shown = {one["name"]: one for one in caller.ask("GET", "/v1/config").json["settings"]}
        restored = caller.ask("DELETE", "/v1/config/threshold_rows?reason=enough", token="config").json["settings"]

    assert [answer.status for answer in refused] == [422, 422, 409, 404, 403, 409]
    assert refused[0].json["detail"].startswith("threshold_rows: Input should be greater")
    assert (done.status, len(caller.changes)) == (200, 2)
    one = shown["threshold_rows"]
    assert (one["value"], one["configured"], one["source"]) == (500, 1000, "run_time")
    assert (one["changed_by"], one["reason"]) == ("api:config", "more often")
    assert {name for name, other in shown.items() if other["source"] == "configuration"} == CHANGEABLE - {one["name"]}
    assert next(two["value"] for two in restored if two["name"] == "threshold_rows") == 1000


@pytest.fixture
def ask(monkeypatch, tmp_path, database_url, engine):
    """Run a command of the front door against a database with an open line."""
    monkeypatch.chdir(tmp_path)
    given = {"HOME": str(tmp_path), "DATABASE_URL": database_url, "LINE": "micro", "THRESHOLD_ROWS": "60"}
    for name, value in given.items():
        monkeypatch.setenv(f"CODELUPE_{name}", value)

    def run(*words):
        monkeypatch.setattr(codelupe.sys, "argv", ["codelupe", *words])
        done = CliRunner().invoke(codelupe.main, words)
        return done.exit_code, done.output

    return run


def test_by_command_a_setting_is_changed_shown_with_its_source_and_restored(ask, ctx):
    change = ask("config", "set", "train_windows", "mon-fri 22:00-06:00, sat-sun", "--reason", "noise")
    refused = ask("config", "set", "threshold_rows", "none", "--reason", "why not")
    ask("config", "set", "max_age_hours", "48", "--reason", "holidays")
    ask("config", "set", "max_age_hours", "none", "--reason", "over")
    shown = {row["setting"]: row for row in json.loads(ask("config", "show", "--json")[1])["settings"]}
    differs = ask("config", "diff")[1].splitlines()
    history = json.loads(ask("config", "history", "--json")[1])["changes"]
    restored = ask("config", "unset", "train_windows")

    windows = ["mon-fri 22:00-06:00", "sat-sun"]
    assert change == (0, f"train_windows = {json.dumps(windows)}: from the daemon's next tick on\n")
    assert (refused[0], "threshold_rows: Input should be a valid integer (given: None)" in refused[1]) == (2, True)
    assert shown["daemon.train_windows"] == {"setting": "daemon.train_windows", "value": windows, "origin": "run time"}
    assert shown["daemon.threshold_rows"]["origin"] == "environment"
    assert f"daemon.train_windows: [] -> {json.dumps(windows)} (run time)" in differs
    assert [(one["setting"], one["old"], one["new"], one["reason"]) for one in history] == [
        ("max_age_hours", 48, None, "over"),
        ("max_age_hours", None, 48, "holidays"),
        ("train_windows", [], windows, "noise"),
    ]
    assert restored == (0, "train_windows = []: from the daemon's next tick on\n")


def test_without_the_database_the_configuration_is_shown_with_a_word_about_it(ask, monkeypatch):
    monkeypatch.setenv("CODELUPE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")

    status, text = ask("config", "diff")

    assert status == 0
    assert "without what was changed at run time: " in text
