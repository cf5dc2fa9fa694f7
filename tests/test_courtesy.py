"""A run on a card that another process wants: the service and the other are real, the card and the model are not."""

import json
import subprocess

import pytest

from daemon.job import STOPPED
from tests.processes import ROOT, steer
from tests.rows import runs_of, store_rows
from tests.waiting import wait_for


@pytest.fixture
def card(tmp_path, monkeypatch):
    """Put a card into this machine; return what sets who computes on it."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho GPU-1, NVIDIA GeForce RTX 5090, 32768\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests/nvml"))
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "card.json"))

    def used_by(*processes):
        new = tmp_path / "card.new"
        new.write_text(json.dumps({"processes": processes}))
        new.rename(tmp_path / "card.json")

    return used_by


@pytest.fixture
def other():
    """Another process of this machine."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def start_on_card(start, database_url, **settings):
    return start("daemon", "run", "--once", database_url=database_url, profile="small", line="tiny", **settings)


def test_a_run_leaves_the_card_with_a_checkpoint_and_goes_on_when_the_other_has_gone(
    start, database_url, tmp_path, card, other
):
    store_rows(database_url)
    steer(tmp_path / "home", hold_step=6)
    service = start_on_card(start, database_url, courtesy_s=600)
    card(service.process.pid)  # what is ours is no other
    service.wait_until("the training", lambda: service.status()["training"].get("step") == 5)

    card(service.process.pid, other)

    service.wait_for("decided", reason="card_in_use")
    assert [one["status"] for one in service.events("child_ended")] == [STOPPED]
    assert (tmp_path / "home/runs/tiny/0001/checkpoints/checkpoint-00000005").exists()
    assert service.ask("why")["decisions"][0]["inputs"]["processes"] == str(other)
    (tmp_path / "home/go").touch()
    card(service.process.pid)
    assert service.wait_end() == 0
    assert [(run.number, run.state, run.attempt) for run in runs_of(database_url)] == [(1, "promoted", 0)]


def test_a_child_that_makes_no_checkpoint_in_time_is_killed_and_the_run_loses_nothing_else(
    start, database_url, tmp_path, card, other
):
    store_rows(database_url)
    steer(tmp_path / "home", import_s=600.0)
    service = start_on_card(start, database_url, courtesy_s=5)
    service.wait_until("the import", lambda: service.status()["training"].get("phase") == "import")

    card(other)

    service.wait_for("decided", reason="card_in_use")
    assert [one["outcome"] for one in service.events("child_ended")] == ["stopped"]
    wait_for(lambda: runs_of(database_url)[0].attempt == 0)
    assert runs_of(database_url)[0].state == "training"


def test_without_courtesy_a_run_stays(start, database_url, card, other):
    store_rows(database_url)
    card(other)

    assert start_on_card(start, database_url).wait_end() == 0
