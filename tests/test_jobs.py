"""A job that was asked for over HTTP is a row: it outlives killed daemons, and is one job however often it is sent."""

import json
import urllib.request

from tests.processes import steer
from tests.rows import audit_of, runs_of, store_rows
from tests.waiting import DEADLINE_S


def test_a_job_asked_for_over_http_outlives_killed_daemons(start, database_url, tmp_path):
    """Every call is made until it is answered: a busy service may say 503, and one that is killed nothing at all."""
    home = tmp_path / "home"
    store_rows(database_url, 5)
    steer(home, hold_step=6)
    service = start("daemon", "run", database_url=database_url)
    service.wait_for("decided", reason="too_few_rows")
    token = service.run("token", "create", "tests", "--scope", "train", "--scope", "read").strip()

    def call(method, path, body=None):
        url = service.events("daemon_started")[0]["url"] + path
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Idempotency-Key": "once"}
        request = urllib.request.Request(url, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return json.load(answer)

    def ask_for_a_run():
        return call("POST", "v1/fine-tune", b'{"reason": "x"}')

    def is_in(state):
        return call("GET", f"v1/jobs/{job['id']}")["state"] == state

    job = service.wait_until("job", ask_for_a_run)
    service.kill()
    service = start("daemon", "run", database_url=database_url)
    service.wait_until("run", lambda: is_in("running") and service.status()["training"].get("step") == 5)
    again = service.wait_until("job", ask_for_a_run)
    service.kill()
    (home / "go").touch()
    service = start("daemon", "run", database_url=database_url)
    service.wait_until("promotion", lambda: is_in("promoted"))

    assert again["id"] == job["id"]
    assert [(run.number, run.state) for run in runs_of(database_url)] == [(1, "promoted")]
    assert audit_of(database_url).rows_unaccounted == 0
    assert service.stop() == 0
