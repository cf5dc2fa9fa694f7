"""The operator's commands while the daemon runs: pause, resume, cancel, train now."""

from tests.processes import steer
from tests.rows import audit_of, runs_of, store_rows


def test_a_run_is_paused_resumed_and_cancelled_and_the_next_one_asked_for(start, database_url, tmp_path):
    home = tmp_path / "home"
    store_rows(database_url)
    steer(home, hold_step=6)
    # A failure's back-off would outlast the test: only the operator gets past it.
    service = start("daemon", "run", database_url=database_url, back_off_s=3600)
    child_log = home / "runs" / "tiny" / "0001" / "child.log"
    service.wait_until("training", lambda: service.status()["training"].get("step") == 5)

    service.run("train", "pause")
    service.wait_for("child_ended", outcome="stopped")
    service.wait_for("decided", reason="paused")
    assert "paused" in service.health()["reasons"]
    assert [run.state for run in runs_of(database_url)] == ["training"]
    assert audit_of(database_url).by_state["claimed"] == 30

    service.run("train", "resume")
    service.wait_until("resumption", lambda: "resumed from checkpoint-00000005" in child_log.read_text())
    assert "paused" not in service.wait_until("health", service.health)["reasons"]

    service.run("train", "cancel")
    service.wait_for("run_failed", reason="cancelled")
    service.wait_for("decided", reason="backing_off")
    assert [(run.state, run.reason) for run in runs_of(database_url)] == [("failed", "cancelled")]
    assert audit_of(database_url).by_state["pending"] == 30

    (home / "go").touch()
    service.run("train", "now")
    service.wait_until("version", lambda: service.health()["current_version"] == 1)
    assert [(run.number, run.state) for run in runs_of(database_url)] == [(2, "promoted"), (1, "failed")]

    store_rows(database_url, 3, first=100)
    service.wait_for("decided", reason="too_few_rows")
    service.run("train", "now")
    service.wait_until("version", lambda: service.health()["current_version"] == 2)
    assert audit_of(database_url).by_state["trained"] == 33
    assert service.stop() == 0


def test_a_setting_that_is_changed_by_command_is_obeyed_without_a_restart_and_after_one(start, database_url):
    store_rows(database_url)
    service = start("daemon", "run", database_url=database_url, threshold_rows=1000, train_windows="00:00-24:00")
    service.wait_for("decided", reason="too_few_rows")

    service.run("config", "set", "threshold_rows", "20", "--reason", "sooner")

    service.wait_for("setting_changed", setting="threshold_rows", old=1000, new=20)
    service.wait_for("decided", reason="threshold_reached")
    service.kill()
    again = start("daemon", "run", database_url=database_url, threshold_rows=1000)
    again.wait_until("answer", lambda: again.status()["config"]["daemon"]["threshold_rows"] == 20)
