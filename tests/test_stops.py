"""SIGTERM and Ctrl-C at any moment: everything ends in order, and the next start goes on as if nothing had been."""

import json
import signal

import pytest
import sqlalchemy as sa

from daemon.job import STOPPED
from daemon.paths import LinePaths
from tests.processes import Service, make_source, processes_of, steer
from tests.rows import opened, runs_of, store_rows
from tests.waiting import wait_for

ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, empty_database, migrated_template):
    """The weights that the same rows give when nothing happens."""
    home, url = tmp_path_factory.mktemp("undisturbed") / "home", empty_database(migrated_template)
    store_rows(url)
    service = Service(home, "daemon", "run", "--once", database_url=url)
    assert service.wait_end() == 0
    return weights(home)


def weights(home):
    return (LinePaths(home, "tiny").version(1) / ADAPTER).read_text()


def stop(service, number, *, group):
    """Stop it; return its status, once nothing of its home lives any more."""
    status = service.stop(number, group=group)
    wait_for(lambda: not processes_of(service.home), "the end of every process")
    return status


def is_in(service, phase):
    return service.wait_until(phase, lambda: service.status()["training"].get("phase") == phase)


# What the stand-in is to do so that the state lasts, the phase that tells it, and how the process is asked to stop.
MOMENTS = [
    ("import", {"import_s": 4.0}, signal.SIGTERM, False),
    ("tokenize", {"tokenize_s": 60.0}, signal.SIGINT, True),
    ("train", {"hold_step": 6}, signal.SIGTERM, True),
    ("train", {"hold_step": 13}, signal.SIGINT, True),
    ("evaluate", {"evaluate_s": 60.0}, signal.SIGTERM, False),
]


def test_a_daemon_stopped_in_every_phase_of_a_run_resumes_it_and_ends_with_the_same_weights(
    start, database_url, tmp_path, undisturbed
):
    store_rows(database_url)
    runs = []

    for phase, asked, number, group in MOMENTS:
        steer(tmp_path / "home", **asked)
        service = start("daemon", "run", database_url=database_url)
        is_in(service, phase)
        assert stop(service, number, group=group) == 0, phase
        assert service.events("child_ended")[-1]["status"] == STOPPED, phase
        runs.append(runs_of(database_url)[0])
    checkpoints = [path.name for path in (tmp_path / "home/runs/tiny/0001/checkpoints").iterdir()]
    steer(tmp_path / "home")
    assert start("daemon", "run", "--once", database_url=database_url).wait_end() == 0

    assert len({(run.number, run.uuid, run.members_digest) for run in runs}) == 1
    assert [run.state for run in runs] == ["training", "training", "training", "training", "evaluating"]
    assert [run.attempt for run in runs] == [0] * len(runs)
    assert sorted(checkpoints) == ["checkpoint-00000018", "checkpoint-00000020"]
    assert weights(tmp_path / "home") == undisturbed


@pytest.mark.parametrize(("number", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_a_daemon_that_waits_for_rows_stops_at_once(start, database_url, number, group):
    service = start("daemon", "run", database_url=database_url, check_interval_s=300)
    service.wait_for("decided", verdict="wait")

    assert stop(service, number, group=group) == 0


def test_a_stop_in_the_middle_of_a_publication_lets_it_end(start, database_url, tmp_path):
    store_rows(database_url)
    service = start("daemon", "run", database_url=database_url)
    version = LinePaths(tmp_path / "home", "tiny").version(1)
    service.wait_for("run_claimed")
    with opened(database_url) as engine, engine.begin() as conn:
        # The promotion has to wait for this row.
        conn.execute(sa.text("SELECT id FROM lines FOR NO KEY UPDATE"))
        service.wait_until("version on disk", version.exists)
        service.process.send_signal(signal.SIGTERM)

    assert service.wait_end() == 0
    assert runs_of(database_url)[0].state == "promoted"
    assert (version / ".." / ".." / "current" / ADAPTER).exists()


def test_up_stops_trainer_then_ingest_then_postgresql(start, home_with_rows, tmp_path, undisturbed):
    home = home_with_rows
    steer(home, hold_step=8)
    service = start("up", str(make_source(tmp_path / "project", 1)))
    is_in(service, "train")

    status = stop(service, signal.SIGINT, group=True)

    assert status == 0
    ends = [
        one["event"] for one in service.events() if one["event"] in ("child_ended", "ingest_stopped", "database_left")
    ]
    assert ends == ["child_ended", "ingest_stopped", "database_left"]
    assert "PostgreSQL has stopped" in (home / "logs" / "keeper.log").read_text().splitlines()[-1]
    steer(home)
    again = start("up", "--once", str(tmp_path / "project"))
    assert again.wait_end() == 0
    assert again.ask("runs", "show", "latest")["run"] == 1
    assert weights(home) == undisturbed


def test_up_stopped_in_the_middle_of_a_source_gives_it_back_and_goes_on_with_it(start, home_with_rows, tmp_path):
    home = home_with_rows
    source = make_source(tmp_path / "project", 120)
    service = start("up", str(source), threshold_rows=1000)
    service.wait_until("a clone", lambda: service.children().get("clone"))

    status = stop(service, signal.SIGTERM, group=True)

    assert status == 0
    assert list((home / "repos").iterdir()) == []
    again = start("up", str(source), threshold_rows=1000)
    assert again.wait_for("repository_done")
    sources = json.loads(again.run("ingest", "status", "--json"))["sources"]
    assert [(row["state"], row["file_count"] > 0) for row in sources if row["source"] == str(source)] == [
        ("done", True)
    ]
