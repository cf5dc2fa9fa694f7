"""Files that were cut short or changed: the one before is used, or it is set aside, rebuilt, refused, and said."""

import pytest

from daemon.paths import LinePaths
from tests.processes import steer
from tests.rows import runs_of, store_rows

DAMAGES = {
    "missing": lambda path, _: path.unlink(),
    "truncated": lambda path, whole: path.write_bytes(whole[: len(whole) // 2]),
    "a byte changed": lambda path, whole: path.write_bytes(whole.replace(b"1", b"2", 1)),
}


@pytest.fixture
def served(start, database_url):
    """A daemon with a version in service."""
    store_rows(database_url)
    service = start("daemon", "run", database_url=database_url)
    service.wait_until("version", lambda: service.health()["current_version"] == 1)
    return service


def test_a_checkpoint_cut_short_is_passed_over_for_the_one_before(start, database_url, tmp_path):
    store_rows(database_url)
    steer(tmp_path / "home", hold_step=6)
    service = start("daemon", "run", database_url=database_url)
    service.wait_until("training", lambda: service.status()["training"].get("step") == 5)
    assert service.stop() == 0
    job = LinePaths(tmp_path / "home", "tiny").job(1)
    newest, before = sorted((job / "checkpoints").iterdir(), reverse=True)
    (newest / "state.json").write_bytes((newest / "state.json").read_bytes()[:-20])
    (tmp_path / "home" / "go").touch()

    assert start("daemon", "run", "--once", database_url=database_url).wait_end() == 0

    assert [(run.number, run.state) for run in runs_of(database_url)] == [(1, "promoted")]
    assert f"resumed from {before.name}" in (job / "child.log").read_text()


def test_a_damaged_state_file_is_set_aside_rebuilt_and_reported(served, tmp_path):
    path = LinePaths(tmp_path / "home", "tiny").state_file
    whole = served.wait_until("state file", lambda: b'"current_version": 1' in path.read_bytes() and path.read_bytes())

    for num_aside, damage in enumerate(DAMAGES.values()):
        damage(path, whole)
        served.wait_until("rebuilt file", lambda: path.exists() and path.read_bytes() == whole)
        assert len(list(path.parent.glob("*.bad-*"))) == num_aside  # a missing one leaves nothing to keep

    assert len(served.events("state_file_set_aside")) == 2


def test_a_version_whose_manifest_has_changed_is_refused_and_the_incumbent_stays(served, database_url, tmp_path):
    manifest = LinePaths(tmp_path / "home", "tiny").version(1) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed"', '"sead"'))

    store_rows(database_url, first=100)
    served.wait_for("run_failed", reason="damaged")

    health = served.wait_until("its word", lambda: served.health()["status"] == "degraded" and served.health())
    assert "version_unverified" in health["reasons"]
    assert str(manifest) in health["details"]["version"]
    assert health["current_version"] == 1
    assert not health["model_loaded"]
