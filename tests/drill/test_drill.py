"""`make drill`: a throw-away instance is broken in every way that an operator is to be called for, and mended again.

Real processes, a real Prometheus and Alertmanager and a real call; only the alerts' times are cut short, and the model,
the card and GitHub are stand-ins. The tests follow one another on one instance: the audit at the end must be clean.
"""

import contextlib
import json

import psycopg
import pytest
import sqlalchemy as sa
import yaml

from monitoring import record
from tests.drill.instance import DISK_BYTES, Instance
from tests.processes import steer
from tests.rows import audit_of, opened, runs_of, store_rows
from tests.system.prometheus import ALERTS
from tests.waiting import wait_for

pytestmark = pytest.mark.drill

# What would take a machine that is really worn out, or days; promtool tests these like all others.
NOT_DRILLED = {"PoolExhausted", "ClockJumping", "CheckpointsFailing", "IngestStuck", "SourcesDying", "LoopFailing"} | {
    "DaemonTickStale"
}


@pytest.fixture(scope="module")
def drill(tmp_path_factory):
    """Yield the instance."""
    with pytest.MonkeyPatch.context() as environment:
        folder = tmp_path_factory.mktemp("drill")
        environment.setenv("PYTHONPATH", "tests/nvml")
        environment.setenv("FAKE_NVML", str(folder / "card.json"))
        instance = Instance(folder)
        try:
            yield instance
        finally:
            instance.close()


def wait_for_run(drill, number, state):
    wait_for(
        lambda: (number, state) in {(run.number, run.state) for run in runs_of(drill.database.url)}, f"{number} {state}"
    )


def test_ingest_starves(drill):
    drill.wait_for_call("IngestStarved")


def test_a_card_is_too_hot_and_then_lost(drill):
    drill.card.write_text(json.dumps({"celsius": 89}))
    drill.wait_for_call("GpuHot")
    drill.card.write_text(json.dumps({"lost": True}))
    drill.wait_for_call("GpuLost")
    drill.card.write_text("{}")


def test_a_token_expires(drill):
    record.record_crawl_request("bad_token")
    drill.wait_for_call("TokenRejected")


def test_the_trainer_stalls_and_goes_on(drill):
    steer(drill.home, hold_step=6)
    store_rows(drill.database.url)
    drill.wait_for_call("TrainerStalled")
    (drill.home / "go").touch()
    wait_for_run(drill, 1, "promoted")


def test_the_state_file_is_corrupted(drill):
    (drill.home / "state/trainer_state_tiny.json").write_text("{")
    drill.wait_for_call("StateFileDamaged")


def test_the_gate_finds_nothing_better(drill):
    steer(drill.home, gain=-0.05)
    store_rows(drill.database.url, first=1000)
    wait_for_run(drill, 2, "rejected")
    # Its predecessor's promotion is in the window still, and leaves it.
    drill.wait_for_call("NothingPromoted")


def test_runs_fail_one_after_the_other_while_rows_wait(drill):
    steer(drill.home, fail={"step": 3, "reason": "exception"})
    store_rows(drill.database.url, first=2000)
    drill.wait_for_call("RunsFailing", "BacklogNotTrained")
    steer(drill.home)
    drill.daemon.run("train", "now")
    wait_for(lambda: runs_of(drill.database.url)[0].state == "promoted", "a promotion after the failures")


def test_the_disk_is_filled(drill):
    with (drill.home / "filler").open("wb") as filler:
        filler.write(bytes(int(DISK_BYTES * 0.93)))
        filler.flush()
        drill.wait_for_call("DiskFilling")
        while True:
            try:
                filler.write(bytes(1 << 19))
                filler.flush()
            except OSError:
                break
    drill.wait_for_call("DiskFull")
    (drill.home / "filler").unlink()


def test_a_row_is_lost(drill):
    take = "CREATE TABLE lost AS SELECT * FROM training_queue WHERE run_id IS NULL ORDER BY item_id LIMIT 1"
    with opened(drill.database.url) as engine:
        with engine.begin() as conn:
            conn.execute(sa.text(take))
            conn.execute(sa.text("DELETE FROM training_queue USING lost WHERE training_queue.item_id = lost.item_id"))
        drill.daemon.stop()
        drill.start_daemon()  # its audit is at the start, and each hour
        drill.wait_for_call("RowsUnaccounted")
        with engine.begin() as conn:
            conn.execute(sa.text("INSERT INTO training_queue SELECT * FROM lost"))
            conn.execute(sa.text("DROP TABLE lost"))


def test_a_file_of_the_version_in_service_is_changed(drill):
    current = drill.home / "models/tiny/current"
    file = next(path for path in sorted(current.resolve().iterdir()) if path.name != "manifest.json" and path.is_file())
    kept = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(kept + b" ")
    drill.daemon.stop()
    drill.start_daemon()
    drill.wait_for_call("VersionUnverified")
    file.write_bytes(kept)
    drill.daemon.stop()
    drill.start_daemon()


def test_somebody_forgets_to_commit_and_takes_every_connection(drill):
    url = sa.make_url(drill.database.url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as forgotten:
        at_most = int(forgotten.execute("SHOW max_connections").fetchone()[0])
        forgotten.execute("SELECT count(*) FROM lines")
        drill.wait_for_call("TransactionTooOld")
        others = []
        try:
            with contextlib.suppress(psycopg.OperationalError):  # not even one more
                while len(others) < at_most:
                    others.append(psycopg.connect(url))
            drill.wait_for_call("ConnectionsExhausted")
        finally:
            for other in others:
                other.close()


def test_the_accounting_is_not_made_for_long(drill):
    drill.wait_for_call("AuditStale")


def test_crawler_and_grafana_are_gone(drill):
    drill.crawler.close()
    drill.grafana.close()
    drill.wait_for_call("CrawlerDown", "MonitoringDown")


def test_ingest_is_stopped(drill):
    assert drill.ingest.stop() == 0
    drill.wait_for_call("IngestDown")
    drill.start_ingest()


def test_postgres_is_stopped(drill):
    drill.stop_database()
    drill.wait_for_call("DatabaseDown")
    drill.start_database()


def test_the_daemon_is_killed(drill):
    drill.daemon.kill()
    drill.wait_for_call("DaemonDown")
    drill.start_daemon()


def test_every_alert_was_drilled_or_is_named_as_one_that_is_not(drill):
    rules = {rule["alert"] for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]}
    assert rules - drill.phone.called <= NOT_DRILLED


def test_the_audit_is_clean_afterwards_and_the_instance_trains_on(drill):
    promoted = sum(run.state == "promoted" for run in runs_of(drill.database.url))
    store_rows(drill.database.url, first=3000)
    wait_for(lambda: sum(run.state == "promoted" for run in runs_of(drill.database.url)) > promoted, "a round")
    wait_for(lambda: not drill.prometheus.firing() & {"RowsUnaccounted", "DatabaseDown", "DaemonDown"}, "silence")
    assert audit_of(drill.database.url).rows_unaccounted == 0
