"""The whole stack, for real: healthy, a round published in it, each container killed, upgraded, backed up, restored.

One stack for all tests, which run in this order: `make test-stack`.
"""

import json

import pytest

from tests.deploy.stack_file import ONE_SHOT, SERVICES
from tests.schema.test_filled_upgrade import FILL
from tests.stack.stack import Stack

pytestmark = pytest.mark.stack

STAYING = [
    name
    for name, service in SERVICES.items()
    if name not in ONE_SHOT and {"cpu", "crawl", "always"} & set(service.get("profiles", ["always"]))
]
FILES_OF_FILL = 600
ROUND_S = 1800


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("stack"))
    stack.build()
    try:
        stack.start()
        yield stack
    finally:
        stack.remove()


def rows(stack):
    """Return how many rows there are, and how many are not accounted for."""
    report = stack.ask("audit")
    return report["rows_total"], report["rows_unaccounted"]


def test_every_service_is_healthy_or_has_done_its_work(stack):
    assert stack.states() == {name: "done" if name in ONE_SHOT else "healthy" for name in (*STAYING, *ONE_SHOT)}


@pytest.mark.parametrize("service", STAYING)
def test_a_container_runs_without_root_and_cannot_write_to_its_own_programs(stack, service):
    found = stack.inspect(service)

    assert stack.run_in(service, "id", "-u").strip() != "0"
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["Memory"] > 0


def test_no_password_is_seen_by_who_looks_at_a_container_from_outside(stack):
    passwords = [
        (stack.folder / "secrets" / name).read_text().strip() for name in ("database_password", "grafana_password")
    ]
    for service in STAYING:
        found = stack.inspect(service)
        told = json.dumps(found) + stack.docker("top", found["Id"], "-eo", "pid,args")

        assert [password for password in passwords if password in told] == []


def runs(stack):
    """Return the line's runs, the newest first; none before the daemon has opened its line."""
    return json.loads(stack.run_in("daemon-cpu", "sh", "-c", "codelupe runs list --json || echo '{\"runs\": []}'"))[
        "runs"
    ]


def published(stack):
    """Return the rounds that ended with a version in service; run 0 made the base."""
    return [run for run in runs(stack) if run["run"] >= 1 and run["state"] == "promoted"]


def test_a_daemon_that_is_killed_while_it_trains_publishes_the_round_after_all(stack):
    stack.wait_until("a run that trains", lambda: any(run["state"] == "training" for run in runs(stack)))
    stack.kill("daemon-cpu")
    stack.wait_until("a healthy daemon", lambda: stack.states()["daemon-cpu"] == "healthy")

    stack.wait_until("a published round", lambda: published(stack), ROUND_S)

    assert stack.ask("models", "show", "current")["verified"]
    assert rows(stack)[1] == 0


def test_prometheus_sees_every_process_and_knows_the_alerts(stack):
    def targets_that_are_up():
        targets = stack.fetch("http://prometheus:9090/api/v1/targets")["data"]["activeTargets"]
        return {target["labels"]["job"] for target in targets if target["health"] == "up"}

    jobs = {"codelupe-daemon", "codelupe-ingest", "codelupe-crawler", "prometheus", "alertmanager"}
    stack.wait_until(f"all of {jobs}", lambda: jobs <= targets_that_are_up())
    groups = stack.fetch("http://prometheus:9090/api/v1/rules")["data"]["groups"]
    managers = stack.fetch("http://prometheus:9090/api/v1/alertmanagers")["data"]["activeAlertmanagers"]

    assert sum(len(group["rules"]) for group in groups) > 10
    assert [manager["url"] for manager in managers] == ["http://alertmanager:9093/api/v2/alerts"]


def test_each_process_leaves_its_log_as_json_lines_in_the_logs_folder(stack):
    for name in ("daemon.log", "ingest.log", "crawler.log"):
        lines = stack.run_in("daemon-cpu", "cat", f"/app/logs/{name}").splitlines()

        assert lines
        assert [line for line in lines if "event" not in json.loads(line)] == []


@pytest.mark.parametrize("service", STAYING)
def test_a_killed_container_comes_back_with_nothing_lost(stack, service):
    before, restarts = rows(stack), stack.inspect(service)["RestartCount"]

    stack.kill(service)
    stack.wait_until("a restart", lambda: stack.inspect(service)["RestartCount"] == restarts + 1)
    stack.wait_until("health", lambda: stack.states()[service] == "healthy")

    assert rows(stack) == before
    assert published(stack)


def test_ingest_is_scaled_and_prometheus_finds_each_worker(stack):
    stack.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", "ingest=2", "ingest")

    query = "http://prometheus:9090/api/v1/query?query=count(up%7Bjob%3D%22codelupe-ingest%22%7D%20%3D%3D%201)"
    stack.wait_until(
        "two workers",
        lambda: [one["value"][1] for one in stack.fetch(query)["data"]["result"]] == ["2"],
    )
    stack.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", "ingest=1", "ingest")


def test_a_database_of_the_first_revision_is_upgraded_by_migrate(stack):
    run_sql(stack, "postgres", "CREATE DATABASE earlier")
    script = f"""
import sqlalchemy as sa
from schema.database import create_engine, migrate
engine = create_engine({url_of(stack, "earlier")!r}, application_name="tests")
with engine.begin() as conn:
    migrate(conn, "0001")
    conn.execute(sa.text({FILL!r}))
"""
    stack.run_in("ingest", "python", "-", given=script)

    # As an upgraded stack does it: the service, on the database that the password file names.
    run_with(stack, "earlier", "migrate", "db", "upgrade")
    report = json.loads(run_with(stack, "earlier", "migrate", "audit", "--json"))

    assert (report["rows_total"], report["rows_unaccounted"]) == (FILES_OF_FILL, 0)


def test_a_backup_of_the_stack_is_restored_with_every_row(stack):
    before = rows(stack)
    made = json.loads(stack.run_in("backup", "codelupe", "db", "backup", "--json"))
    run_sql(stack, "postgres", "CREATE DATABASE restored")

    report = json.loads(run_with(stack, "restored", "backup", "db", "restore", made["file"], "--json"))

    assert (report["audit"]["rows_total"], report["audit"]["rows_unaccounted"]) == before


def run_sql(stack, database, statement):
    stack.run_in("postgres", "psql", "--username=codelupe", f"--dbname={database}", "--command", statement)


def url_of(stack, database):
    return (stack.folder / "secrets/database_url").read_text().strip().removesuffix("codelupe") + database


def run_with(stack, database, service, *words):
    """Run codelupe once in a service's image, with another database: its URL comes over standard input."""
    script = 'read -r url; CODELUPE_DATABASE_URL="$url" exec codelupe "$@"'
    command = ("run", "--rm", "--no-TTY", "--no-deps", "--entrypoint", "sh", service, "-c", script, "sh", *words)
    return stack.compose(*command, given=url_of(stack, database) + "\n").stdout


def test_everything_stops_within_its_grace_period(stack):
    stack.compose("stop")

    ended = {service: stack.inspect(service)["State"]["ExitCode"] for service in STAYING}

    # 137 is the engine's kill after the grace period; 143 an end by SIGTERM itself.
    assert {service: code for service, code in ended.items() if code not in (0, 143)} == {}
