"""One id leads from the decision of a tick to the last line of the child that it brought about."""

import json

from tests.processes import steer
from tests.rows import store_rows


def records_of(path):
    """Return the lines of a log that are JSON: a library may print beside them."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def test_one_id_leads_from_the_decision_to_the_child_and_its_progress(start, database_url, tmp_path):
    home = tmp_path / "home"
    store_rows(database_url, 30)
    steer(home, hold_step=6)
    service = start("daemon", "run", database_url=database_url)
    claimed = service.wait_for("run_claimed")
    service.wait_until("training", lambda: service.status()["training"].get("step") == 5)
    job = json.loads((home / "runs" / "tiny" / "0001" / "job.json").read_text())
    (home / "go").touch()
    service.wait_until("version", lambda: service.health()["current_version"] == 1)

    decided_by = claimed["tick"]
    decisions = service.ask("why")["decisions"]
    assert [one["tick"] for one in decisions if one["reason"] == "threshold_reached"] == [decided_by]
    run = service.ask("runs", "show")
    assert run["decided_by"] == decided_by
    assert [one["state"] for one in run["history"]][:2] == ["claimed", "training"]
    assert run["history"][-1]["state"] == "promoted"
    assert all(one["at"] and one["tick"] for one in run["history"])

    trained_by = next(one["tick"] for one in run["history"] if one["attempt"] == 1)
    ids = {"line": "tiny", "run": 1, "attempt": 1, "tick": trained_by, "decided_by": decided_by}
    assert {name: job[name] for name in ids} == ids
    begun, *_ = child = records_of(home / "runs" / "tiny" / "0001" / "child.log")
    assert begun["event"] == "child_begun"
    assert {name: begun[name] for name in ids} == ids
    assert {one["decided_by"] for one in child} == {decided_by}
    ended = service.wait_for("child_ended", verb="train")
    assert {name: ended[name] for name in ids} == ids
    assert decided_by in service.run("runs", "show")
    assert service.stop() == 0
