"""SIGKILL of every process, at each failpoint and at random moments: the next start recovers by itself."""

import contextlib
import os
import random
import signal
import time

import pytest
import sqlalchemy as sa

from daemon.paths import LinePaths
from daemon.publish import verify_folder
from schema.embedded import server_status
from schema.failpoints import NAMES
from schema.lines import fetch_line
from schema.runs import fetch_runs
from schema.tables import OPEN_STATES
from schema.versions import fetch_versions
from tests.ingest.helpers import git
from tests.processes import make_source, processes_of, steer
from tests.rows import audit_of, opened, runs_of, store_rows
from tests.waiting import wait_for

KILLED = -signal.SIGKILL
LEFT_OF_A_RUN = {"job.json", "result.json", "evaluation.json", "error.json", "child.log"}

# In the order in which one run comes by: each start goes on where the one before was killed, up to the next.
TO_PROMOTION = [
    "file.before_sync",
    "state_file.before_rename",
    "run.after_claim",
    "run.before_training",
    "run.after_training",
    "run.after_evaluation",
    "publish.before_copy",
    "publish.before_rename",
    "publish.after_rename",
    "publish.before_promote",
    "publish.after_promote",
    "publish.before_symlink",
    "publish.after_symlink",
]
# In the order of a run that fails because of one of its rows, and of the search for it.
TO_QUARANTINE = ["run.before_release", "run.after_release", "probe.after_pass"]
OF_THE_TRAINER = ["checkpoint.before_write", "checkpoint.before_rename", "checkpoint.after_rename"]
# In tests/ingest/github, with the crawler's other tests.
OF_THE_CRAWLER = ["crawl.before_commit"]
OF_INGEST = ["ingest.before_scratch", "ingest.before_save", "ingest.after_save", "ingest.before_finish"]

OF_SCORING_AGAIN = ["rescore.before_save", "rescore.after_save"]


def let_leases_run_out(database_url):
    """Do what waiting would do; that a lease must be waited for is shown in test_two_of_everything.py."""
    with opened(database_url) as engine, engine.begin() as conn:
        conn.execute(sa.text("UPDATE leases SET holder = '', until = clock_timestamp()"))
        conn.execute(sa.text("UPDATE repositories SET lease_until = now() WHERE lease_until > now()"))


def assert_consistent(home, database_url):
    """What must hold at any moment: every row accounted for, one open run at most, and whole versions alone."""
    paths = LinePaths(home, "tiny")
    with opened(database_url) as engine, engine.connect() as conn:
        line = fetch_line(conn, "tiny")
        versions = {row["number"]: row for row in fetch_versions(conn, line.id)} if line else {}
        assert sum(run.state in OPEN_STATES for run in (fetch_runs(conn, line.id, limit=100) if line else [])) <= 1
    assert audit_of(database_url).rows_unaccounted == 0
    if paths.versions.exists():
        visible = [path for path in paths.versions.iterdir() if not path.name.endswith(".tmp")]
        assert all(verify_folder(path) for path in visible)
    if paths.current.exists():
        assert int(paths.current.resolve().name) in versions


def assert_recovered(home, database_url):
    """What must hold when all is done: `assert_consistent`, `current` in place, and nothing left over."""
    assert_consistent(home, database_url)
    paths = LinePaths(home, "tiny")
    with opened(database_url) as engine, engine.connect() as conn:
        line = fetch_line(conn, "tiny")
        row = next(row for row in fetch_versions(conn, line.id) if row["number"] == line.current_version)
    assert paths.current.resolve() == paths.version(line.current_version).resolve()
    assert verify_folder(paths.current, row["manifest_digest"])
    files = [path for path in home.rglob("*") if "postgres" not in path.relative_to(home).parts]
    assert [path for path in files if path.name.endswith((".tmp", ".replaced"))] == []
    assert [path for path in files if path.parent.parent == paths.jobs and path.name not in LEFT_OF_A_RUN] == []
    assert list((home / "repos").glob("*")) == []


def assert_nothing_lives(home):
    wait_for(lambda: not processes_of(home), "the end of every process")


def kill_at(start, failpoint, *words, database_url, **settings):
    """Run until the failpoint kills the process; check what it leaves."""
    service = start(*words, database_url=database_url, failpoints=f"{failpoint}=kill", **settings)
    assert service.wait_end() == KILLED, failpoint
    assert_nothing_lives(service.home)
    assert_consistent(service.home, database_url)
    let_leases_run_out(database_url)


def finish(start, database_url, **settings):
    """Start without failpoints, wait until a version is in service, and stop."""
    service = start("daemon", "run", database_url=database_url, **settings)
    service.wait_until("version", lambda: service.health()["current_version"])
    assert service.stop() == 0


def test_every_failpoint_is_in_one_of_the_tables():
    killed = TO_PROMOTION + TO_QUARANTINE + OF_THE_TRAINER + OF_THE_CRAWLER + OF_INGEST + OF_SCORING_AGAIN

    assert sorted(killed) == sorted(NAMES)


def test_a_daemon_killed_at_every_failpoint_of_a_run_ends_with_one_published_version(start, database_url, tmp_path):
    store_rows(database_url)
    steer(tmp_path / "home", steps=4)

    for failpoint in TO_PROMOTION:
        kill_at(start, failpoint, "daemon", "run", database_url=database_url)
    finish(start, database_url)

    assert [(run.number, run.state) for run in runs_of(database_url)] == [(1, "promoted")]
    assert audit_of(database_url).by_state["trained"] == 30
    assert_recovered(tmp_path / "home", database_url)


def test_a_daemon_killed_as_a_run_fails_and_as_the_row_at_fault_is_sought_finds_it(start, database_url, tmp_path):
    store_rows(database_url, 4, poison=3)
    steer(tmp_path / "home", steps=4, fail={"text": "POISON", "reason": "nan"})
    few = {"threshold_rows": 4, "bisect_after": 1}

    for failpoint in TO_QUARANTINE:
        kill_at(start, failpoint, "daemon", "run", database_url=database_url, **few)
    store_rows(database_url, 4, first=100)
    finish(start, database_url, **few)

    states = audit_of(database_url).by_state
    assert (states["quarantined"], states["trained"]) == (1, 7)
    assert_recovered(tmp_path / "home", database_url)


@pytest.mark.parametrize("failpoint", OF_THE_TRAINER)
def test_a_trainer_killed_at_its_checkpoint_is_started_again_in_the_same_run(start, database_url, tmp_path, failpoint):
    store_rows(database_url)
    # The next try is not to be killed as well before we stop.
    service = start("daemon", "run", database_url=database_url, failpoints=f"{failpoint}=kill", check_interval_s=300)
    service.wait_for("child_ended", outcome="killed")
    assert service.stop() == 0
    assert_consistent(tmp_path / "home", database_url)

    finish(start, database_url)

    assert [(run.number, run.state, run.attempt) for run in runs_of(database_url)] == [(1, "promoted", 0)]
    assert audit_of(database_url).by_state["trained"] == 30
    assert_recovered(tmp_path / "home", database_url)


def test_an_ingest_worker_killed_at_every_failpoint_stores_each_file_once(start, database_url, tmp_path):
    source = make_source(tmp_path / "project", 6)
    words = ("ingest", "work", "--drain", "--no-server")
    start("ingest", "add", str(source), database_url=database_url).wait_end()

    for failpoint in OF_INGEST:
        kill_at(start, failpoint, *words, database_url=database_url)
    assert start(*words, database_url=database_url).wait_end() == 0

    with opened(database_url) as engine, engine.connect() as conn:
        stored = conn.execute(sa.text("SELECT count(*), count(DISTINCT file_path) FROM processed_files")).one()
        states = conn.execute(sa.text("SELECT state FROM repositories")).scalars().all()
    assert stored[0] == stored[1] > 0
    assert states == ["done"]
    assert list((tmp_path / "home" / "repos").iterdir()) == []
    assert_consistent(tmp_path / "home", database_url)


def test_scoring_again_killed_at_every_failpoint_goes_on_where_it_was_beside_the_service(start, database_url, tmp_path):
    """The service claims and trains on rows whose scores are being replaced, a hundred at a time."""
    store_rows(database_url, 120)
    stale = "SELECT count(*) FROM processed_files WHERE scorer_version = 0"
    with opened(database_url) as engine, engine.begin() as conn:
        conn.execute(sa.text("UPDATE processed_files SET scorer_version = 0"))
    steer(tmp_path / "home", steps=4)
    service = start("daemon", "run", database_url=database_url)

    left = []
    for failpoint in OF_SCORING_AGAIN:
        killed = start("ingest", "rescore", database_url=database_url, failpoints=f"{failpoint}=kill")
        assert killed.wait_end() == KILLED, failpoint
        with opened(database_url) as engine, engine.connect() as conn:
            left.append(conn.execute(sa.text(stale)).scalar_one())
    reports = [service.ask("ingest", "rescore") for _ in range(2)]
    service.wait_until("version", lambda: service.health()["current_version"])
    assert service.stop() == 0

    assert left == [132, 32]
    assert [(report["rescored"], report["failed"], report["left"]) for report in reports] == [(32, 0, 0), (0, 0, 0)]
    with opened(database_url) as engine, engine.connect() as conn:
        differs = "SELECT count(*) FROM training_queue q JOIN processed_files f ON f.id = q.item_id WHERE q.score <> "
        assert conn.execute(sa.text(differs + "f.quality_score")).scalar_one() == 0
    assert audit_of(database_url).by_state["trained"] == 120
    assert_recovered(tmp_path / "home", database_url)
    assert_nothing_lives(tmp_path / "home")


NUM_SOURCES = 3
# What is killed, again and again, while a run and an ingest are under way.
VICTIMS = ["git", "clone", "postmaster", "trainer", "keeper", "up", "postmaster", "trainer", "up", "keeper"]


def kill_one(service, kind):
    """Kill a process of a kind as soon as there is one; a git and a clone only until every source is read."""

    def kill():
        for pid in service.children().get(kind, []):
            with contextlib.suppress(ProcessLookupError):  # gone since we looked
                os.kill(pid, signal.SIGKILL)
                return True
        return kind in ("git", "clone") and is_read(service)

    service.wait_until(kind, kill)


def is_read(service):
    """Whether nothing is queued any more."""
    server = server_status(service.home)
    if server is None or not server.is_ready:
        return False
    try:
        with opened(server.url) as engine, engine.connect() as conn:
            states = conn.execute(sa.text("SELECT state FROM repositories")).scalars().all()
    except sa.exc.OperationalError:  # it was killed a moment ago, and is on its way
        return False
    # The rows that were there come from a folder that is not: judging it again by today's rules refuses it.
    return len(states) == NUM_SOURCES and set(states) <= {"done", "refused"}


def is_idle(service):
    """Whether every source is read and no rows are left to train on."""
    return is_read(service) and (service.status()["decision"] or {}).get("reason") == "too_few_rows"


def start_up(start, *words):
    """Start it, and wait until its database is up: one that is killed before is a start that fails, and says so."""
    service = start(*words, retry_delay_s=0, lease_s=3)
    service.wait_for("http_listening")
    return service


def test_whatever_is_killed_at_whatever_moment_everything_goes_on(start, home_with_rows, tmp_path):
    chance = random.Random(7)
    home = home_with_rows
    folder, repository = make_source(tmp_path / "project", 40), make_source(tmp_path / "repository", 50)
    git(repository, "init", "-q", "-b", "main")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "all")
    steer(home, hold_step=10)
    words = ("up", str(repository), str(folder))
    service = start_up(start, *words)

    for number, victim in enumerate(VICTIMS):
        # The first two are of an ingest that is soon done.
        time.sleep(chance.uniform(0, 0.8) if number > 1 else 0)
        if victim == "up":
            service.kill()
            service = start_up(start, *words)
        else:
            kill_one(service, victim)
    # What is read after the last run's decision would have one of its own begin under our eyes.
    service.wait_until("the end of ingest", lambda: is_read(service))
    (home / "go").touch()
    service.wait_until("idleness", lambda: is_idle(service))

    assert service.status()["current_version"]
    assert_recovered(home, server_status(home).url)
    assert service.stop() == 0
    assert_nothing_lives(home)
