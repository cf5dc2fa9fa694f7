"""Two daemons, two lines, several workers on one database: one leads or they share, and nothing is done twice."""

import signal

import psycopg
import pytest

from daemon.paths import LinePaths
from tests.processes import make_source, steer
from tests.rows import audit_of, runs_of, store_rows


@pytest.fixture
def two(start, database_url, tmp_path):
    """A daemon that trains, and stays at its sixth step; another on the same home that waits. Longest lease: 5 s."""
    store_rows(database_url)
    steer(tmp_path / "home", hold_step=6)
    leader = start("daemon", "run", database_url=database_url)
    leader.wait_until("training", lambda: leader.status()["training"].get("step") == 5)
    second = start("daemon", "run", database_url=database_url)
    second.wait_for("decided", reason="busy")
    return leader, second


def promoted(service):
    return service.wait_until("version", lambda: service.health()["current_version"])


def test_of_two_daemons_one_leads_and_the_other_takes_over_when_it_is_killed(two, database_url, tmp_path):
    leader, second = two
    assert leader.status()["leading"]
    assert not second.status()["leading"]
    assert "standby" in " ".join(second.health()["reasons"])

    leader.kill()
    (tmp_path / "home" / "go").touch()

    assert promoted(second) == 1
    assert second.status()["leading"]
    assert [(run.number, run.state) for run in runs_of(database_url)] == [(1, "promoted")]
    log = (tmp_path / "home" / "runs" / "tiny" / "0001" / "child.log").read_text()
    assert log.count("resumed from checkpoint-00000004") == 1


def test_a_leader_that_sleeps_longer_than_its_lease_is_refused_and_its_child_is_killed(two, database_url, tmp_path):
    leader, second = two
    trainers = leader.children()["trainer"]
    leader.process.send_signal(signal.SIGSTOP)
    second.wait_until("taking the lead", lambda: second.status()["leading"])
    # Its orphan holds the device: the new leader's child waits for it.
    leader.process.send_signal(signal.SIGCONT)

    leader.wait_for("lease_lost")
    leader.wait_until("its child's end", lambda: trainers[0] not in leader.children().get("trainer", []))
    leader.wait_for("decided", reason="busy")
    (tmp_path / "home" / "go").touch()

    assert promoted(second) == 1
    assert not leader.status()["leading"]
    assert [(run.number, run.state) for run in runs_of(database_url)] == [(1, "promoted")]
    assert [path.name for path in LinePaths(tmp_path / "home", "tiny").versions.iterdir()] == ["0001"]


def trainings(service):
    return [event for event in service.events("child_ended") if event["verb"] == "train"]


def test_two_lines_on_one_device_take_turns(start, database_url, tmp_path):
    store_rows(database_url, 40)
    steer(tmp_path / "home", steps=4, hold_step=2)
    # Both have work for two runs from their start on; who waits keeps its turn however late it looks again.
    settings = {"max_rows": 20, "replay_share": 0, "check_interval_s": 300, "line_lease_s": 120}
    settings |= {"database_url": database_url}
    one = start("daemon", "run", line="one", **settings)
    one.wait_until("training", lambda: one.status()["training"].get("step") == 1)
    two = start("daemon", "run", line="two", **settings)
    two.wait_for("decided", reason="device_busy")
    (tmp_path / "home" / "go").touch()

    one.wait_until("second version", lambda: one.health()["current_version"] == 2)
    two.wait_until("second version", lambda: two.health()["current_version"] == 2)

    # Between a run's training and its evaluation the other's may come: how they end says nothing of their turns.
    trained = sorted((event["ts"], event["line"]) for service in (one, two) for event in trainings(service))
    assert [line for _, line in trained[:2]] == ["one", "two"], "one trains twice before the other does once"


def test_workers_share_the_queue_and_handle_no_source_twice(start, database_url, tmp_path):
    sources = [make_source(tmp_path / f"project_{number}", 3 + number) for number in range(6)]
    adding = start("ingest", "add", *map(str, sources), database_url=database_url)
    assert adding.wait_end() == 0

    workers = [
        start("ingest", "work", "--drain", "--no-server", home=tmp_path / f"home_{number}", database_url=database_url)
        for number in range(3)
    ]

    assert [worker.wait_end() for worker in workers] == [0, 0, 0]
    handled = [one["source"] for worker in workers for one in worker.events("repository_done")]
    assert sorted(handled) == sorted(map(str, sources))
    assert audit_of(database_url).rows_unaccounted == 0


def test_a_single_tick_outwaits_the_lease_of_one_that_was_killed(start, database_url):
    store_rows(database_url)
    killed = start("daemon", "tick", database_url=database_url, failpoints="run.after_claim=kill")
    assert killed.wait_end() == -signal.SIGKILL
    with psycopg.connect(database_url.replace("+psycopg", "")) as conn:
        conn.execute("UPDATE leases SET until = now()")

    # Each tick is another process: none of them has seen before that nobody renews that lease.
    after = start("daemon", "tick", database_url=database_url)

    assert after.wait_end() == 0
    assert [(run.number, run.state) for run in runs_of(database_url)] == [(1, "training")]
