"""`make drill`: a throw-away instance is broken in every way that an operator is to be called for, and mended again.

Real processes, a real Prometheus and Alertmanager and a real call; only the alerts' times are cut short, and the model,
the card and GitHub are stand-ins. The tests follow one another on one instance: the audit at the end must be clean.
"""

import contextlib
import json
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
import yaml

from monitoring import record
from tests.drill.instance import DISK_BYTES, Instance
from tests.ingest.servers import serve
from tests.processes import steer
from tests.rows import audit_of, opened, runs_of, store_rows
from tests.system.prometheus import ALERTS
from tests.waiting import wait_for

pytestmark = pytest.mark.drill

# Debian's libfaketime: a clock that can be set, of one process.
FAKE_CLOCK = "*/faketime/libfaketimeMT.so.1"


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


@pytest.fixture(autouse=True)
def _listen(drill):
    """Have each test hear what it has caused itself."""
    drill.phone.listen()


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
    with drill.filled_disk(left=0.07):
        drill.wait_for_call("DiskFilling")
    with drill.filled_disk(left=0):
        drill.wait_for_call("DiskFull")


def test_the_disk_has_less_space_than_a_checkpoint_takes(drill):
    (drill.home / "go").unlink()
    steer(drill.home, hold_step=6, checkpoint_bytes=int(0.06 * DISK_BYTES))
    store_rows(drill.database.url, first=4000)
    wait_for(lambda: (drill.daemon.status()["training"] or {}).get("step") == 5, "a run in its fifth step")
    number = runs_of(drill.database.url)[0].number
    with drill.filled_disk(left=0.05):
        (drill.home / "go").touch()
        drill.wait_for_call("CheckpointsFailing")
    wait_for_run(drill, number, "promoted")
    steer(drill.home)


def test_a_row_is_lost(drill):
    take = "CREATE TABLE lost AS SELECT * FROM training_queue WHERE run_id IS NULL ORDER BY item_id LIMIT 1"
    with opened(drill.database.url) as engine:
        with engine.begin() as conn:
            conn.execute(sa.text(take))
            conn.execute(sa.text("DELETE FROM training_queue USING lost WHERE training_queue.item_id = lost.item_id"))
        drill.restart_daemon()  # its audit is at the start, and each hour
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
    drill.restart_daemon()
    drill.wait_for_call("VersionUnverified")
    file.write_bytes(kept)
    drill.restart_daemon()


def test_somebody_forgets_to_commit_and_takes_every_connection(drill):
    with contextlib.ExitStack() as left:
        forgotten = left.enter_context(drill.session())
        at_most = int(forgotten.execute("SHOW max_connections").fetchone()[0])
        forgotten.execute("SELECT count(*) FROM lines")
        drill.wait_for_call("TransactionTooOld")
        with contextlib.suppress(psycopg.OperationalError):  # not even one more
            for _ in range(at_most):
                left.enter_context(drill.session())
        drill.wait_for_call("ConnectionsExhausted")


def test_somebody_locks_the_tables_that_the_loop_reads(drill):
    drill.restart_daemon(pool_size=2)
    with drill.session() as other:
        other.execute("LOCK TABLE lines, leases IN ACCESS EXCLUSIVE MODE")
        drill.wait_for_call("DaemonTickStale", "PoolExhausted")
    drill.restart_daemon()


def test_somebody_renames_a_table(drill):
    with drill.session() as other:
        other.execute("ALTER TABLE lines RENAME TO renamed")
        other.commit()
        drill.wait_for_call("LoopFailing")
        other.execute("ALTER TABLE renamed RENAME TO lines")


def test_the_clock_is_set_again_and_again(drill, monkeypatch):
    libraries = list(Path("/usr/lib").glob(FAKE_CLOCK))
    assert libraries, "a clock that can be set is missing: apt-get install libfaketime"
    clock = drill.folder / "clock"
    clock.write_text("+0")
    with monkeypatch.context() as environment:
        environment.setenv("LD_PRELOAD", str(libraries[0]))
        environment.setenv("FAKETIME_TIMESTAMP_FILE", str(clock))
        environment.setenv("FAKETIME_NO_CACHE", "1")
        environment.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        drill.restart_daemon()
    for number, offset in enumerate(("+20", "+0", "+20", "+0")):
        clock.write_text(offset)
        wait_for(lambda number=number: len(drill.daemon.events("clock_jumped")) > number, "a jump that is noticed")
    drill.wait_for_call("ClockJumping")
    drill.restart_daemon()


def test_the_accounting_is_not_made_for_long(drill):
    drill.wait_for_call("AuditStale")


def test_crawler_and_grafana_are_gone(drill):
    drill.crawler.close()
    drill.grafana.close()
    drill.wait_for_call("CrawlerDown", "MonitoringDown")


def test_a_server_keeps_us_waiting_and_then_the_network_is_away(drill):
    with serve(lambda request: request.advertise() if request.is_first else request.stopped.wait()) as server:
        drill.ingest.run("ingest", "add", f"{server.url}/a")
        drill.wait_for_call("IngestStuck")
    drill.ingest.run("ingest", "add", *(f"{server.url}/{name}" for name in "bcdef"))
    drill.wait_for_call("SourcesDying")


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


def test_every_alert_has_called(drill):
    assert {rule["alert"] for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]} == drill.phone.ever


def test_the_audit_is_clean_afterwards_and_the_instance_trains_on(drill):
    promoted = sum(run.state == "promoted" for run in runs_of(drill.database.url))
    store_rows(drill.database.url, first=3000)
    wait_for(lambda: sum(run.state == "promoted" for run in runs_of(drill.database.url)) > promoted, "a round")
    wait_for(lambda: not drill.prometheus.firing() & {"RowsUnaccounted", "DatabaseDown", "DaemonDown"}, "silence")
    assert audit_of(drill.database.url).rows_unaccounted == 0
