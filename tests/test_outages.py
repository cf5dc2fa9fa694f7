"""Services whose database is away, as an operator sees them: they wait, say so, lose nothing, and go on alone."""

import os
import signal
import threading
import urllib.error
import urllib.request

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

import codelupe
from ingest.commands import queue_source
from ingest.sources import normalise_source
from ingest.worker import work
from schema.cluster import find_binaries
from schema.database import UPGRADE_LOCK, create_engine
from schema.embedded import server_status
from tests.ingest.helpers import SETTINGS, make_code
from tests.processes import steer
from tests.proxy import Proxy
from tests.rows import audit_of, runs_of, store_rows
from tests.waiting import DEADLINE_S, close

# Long enough for every outage here.
LEASE_S = 120


@pytest.fixture
def proxy(database_url):
    with Proxy(database_url) as proxy:
        yield proxy


@pytest.fixture
def behind_proxy(proxy):
    """A worker's engine."""
    engine = create_engine(proxy.url, application_name="worker")
    yield engine
    close(engine)


def is_promoted(database_url):
    return [run.state for run in runs_of(database_url)] == ["promoted"]


def test_a_daemon_whose_database_is_down_at_the_start_says_so_and_goes_on_when_it_answers(start, proxy):
    proxy.go_away()
    service = start("daemon", "run", database_url=proxy.url)
    service.wait_until("health of an outage", lambda: service.health()["reasons"][:1] == ["database_away"])

    health = service.health()
    assert health["status"] == "degraded"
    assert "server closed the connection" in health["details"]["database"]
    assert '"ready": false' in service.get("/ready")
    assert "database_away" in service.get("/ready")
    assert "codelupe_database_up 0.0" in service.get("/metrics")
    assert "next try in" in service.wait_for("database_away")["message"]
    proxy.come_back()
    service.wait_for("decided", reason="too_few_rows")

    assert '"ready": true' in service.get("/ready")
    assert "codelupe_database_up 1.0" in service.get("/metrics")
    assert "details" not in service.health()
    assert "hidden" not in service.log.read_text()
    assert service.stop() == 0


def test_a_signal_ends_every_service_that_waits_for_its_database(start, proxy, tmp_path):
    proxy.go_away()
    commands = {"daemon run": 0, "daemon run --once": 1, "ingest work": 0, "up": 0, "up --once": 1}
    services = {
        command: start(*command.split(), home=tmp_path / f"home-{number}", database_url=proxy.url)
        for number, command in enumerate(commands)
    }
    for service in services.values():
        service.wait_for("database_away")
    ingest_url = services["ingest work"].wait_for("http_listening")["url"]
    with urllib.request.urlopen(ingest_url + "health", timeout=DEADLINE_S) as answer:
        assert b'"degraded"' in answer.read()
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(ingest_url + "ready", timeout=DEADLINE_S)

    for number, service in enumerate(services.values()):
        service.process.send_signal((signal.SIGTERM, signal.SIGINT)[number % 2])

    assert {command: service.wait_end() for command, service in services.items()} == commands
    assert all(service.children() == {} for service in services.values())


def test_a_signal_ends_a_service_whose_embedded_server_is_slow_to_start(start, tmp_path):
    """PostgreSQL is made by an initdb that never ends."""
    real, slow = find_binaries(None).folder, tmp_path / "bin"
    slow.mkdir()
    for program in real.iterdir():
        (slow / program.name).symlink_to(program)
    (slow / "initdb").unlink()
    (slow / "initdb").write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nexec sleep 1000\n")
    (slow / "initdb").chmod(0o755)
    service = start("daemon", "run", postgres_bin=slow)
    service.wait_until("start of initdb", (tmp_path / "begun").exists)

    assert service.stop() == 0


def test_a_signal_ends_a_start_that_waits_for_anothers_migration(start, database_url, engine):
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with engine.begin() as conn:
        conn.execute(sa.select(sa.func.pg_advisory_xact_lock(UPGRADE_LOCK)))
        service = start("up", database_url=database_url)
        service.wait_until("wait", lambda: conn.execute(waiting).scalar_one())

        assert service.stop() == 0

    assert service.children() == {}


def test_training_outlives_an_outage_that_is_shorter_than_the_lease(start, proxy, database_url, tmp_path):
    home = tmp_path / "home"
    steer(home, hold_step=5)
    store_rows(database_url)
    service = start("daemon", "run", home=home, database_url=proxy.url, line_lease_s=LEASE_S)
    (trainer,) = service.wait_until("trainer", lambda: service.children().get("trainer"))
    service.wait_until("steps", lambda: service.status()["training"].get("step"))
    proxy.go_away()
    service.wait_until("outage", lambda: "database_away" in service.health()["reasons"])

    assert service.children()["trainer"] == [trainer]
    (home / "go").touch()
    service.wait_for("child_ended", outcome="done")
    assert "database_away" in service.health()["reasons"]
    proxy.come_back()
    service.wait_until("verdict", lambda: is_promoted(database_url))

    service.wait_until("health", lambda: "database_away" not in service.health()["reasons"])
    assert len([event for event in service.events("child_ended") if event["verb"] == "train"]) == 1
    assert audit_of(database_url).rows_unaccounted == 0


def test_up_goes_on_when_its_postgresql_is_restarted(start, tmp_path):
    (tmp_path / "nothing").mkdir()
    service = start("up", str(tmp_path / "nothing"), line_lease_s=LEASE_S)
    service.wait_for("decided", reason="too_few_rows")
    postmaster = server_status(service.home).postgres_pid
    os.kill(postmaster, signal.SIGQUIT)  # an immediate shutdown: nobody's transaction ends well

    def restarted():
        status = server_status(service.home)
        return status if status.is_ready and status.postgres_pid != postmaster else None

    status = service.wait_until("new PostgreSQL", restarted)

    store_rows(status.url)

    service.wait_until("verdict", lambda: is_promoted(status.url))
    assert audit_of(status.url).rows_unaccounted == 0
    assert service.stop() == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url, _: url.set(database="nowhere"), 'database "nowhere" does not exist'),
        (lambda url, _: url.set(username="nobody"), 'role "nobody" does not exist'),
        (lambda _, empty: sa.make_url(empty()), "run `codelupe db upgrade`"),
        (lambda url, _: set_revision(url, "9999"), "revision 9999, newer than this code knows: install the newer"),
    ],
    ids=["no such database", "no such user", "not migrated", "of a newer code"],
)
@pytest.mark.parametrize("command", ["daemon run", "ingest work", "why"])
def test_what_waiting_cannot_mend_ends_a_command_with_what_to_do(
    command, change, words, database_url, empty_database, tmp_path
):
    url = change(sa.make_url(database_url), empty_database).render_as_string(hide_password=False)
    environment = {"CODELUPE_HOME": str(tmp_path), "CODELUPE_DATABASE_URL": url}
    ports = {"CODELUPE_DAEMON_PORT": "0", "CODELUPE_INGEST_PORT": "0"}

    ended = CliRunner().invoke(codelupe.main, command.split(), env={**environment, **ports})

    assert ended.exit_code == 2, ended.output
    assert words in ended.stderr


def set_revision(url, revision):
    engine = create_engine(url.render_as_string(hide_password=False), application_name="tests")
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    close(engine)
    return url


@pytest.mark.parametrize("done", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("commit", ["lease_token", "staged_files", "file_count="], ids=["claim", "save", "finish"])
def test_ingest_cut_off_at_a_commit_goes_on_and_no_row_is_lost_or_stored_twice(
    commit, done, proxy, behind_proxy, engine, tmp_path, caplog
):
    caplog.set_level("INFO")
    source = tmp_path / "source"
    source.mkdir()
    for name in "abcdefgh":
        (source / f"{name}.py").write_text(make_code(name))
    with engine.begin() as conn:
        queue_source(conn, normalise_source(str(source)))
    told = []
    proxy.cut_at_commit(commit, done=done)

    work(
        behind_proxy,
        SETTINGS.model_copy(update={"lease_s": 3}),
        home=tmp_path / "home",
        stop=threading.Event(),
        once=True,
        alive=lambda *, database_up=None, **_: told.append(database_up),
    )

    assert proxy.was_cut.is_set()
    assert False in told
    with engine.connect() as conn:
        visits = conn.execute(sa.text("SELECT state, file_count, attempts FROM repositories")).all()
        paths = conn.execute(sa.text("SELECT file_path FROM processed_files ORDER BY 1")).scalars().all()
    assert [tuple(visit) for visit in visits] == [("done", 8, 0)]
    assert paths == [f"{name}.py" for name in "abcdefgh"]
    # A visit that was broken off is given back at once; of a claim whose COMMIT was not answered nobody knows.
    was_broken_off = commit == "staged_files" or (commit == "file_count=" and not done)
    assert ("given back (database_away)" in caplog.text) == was_broken_off
