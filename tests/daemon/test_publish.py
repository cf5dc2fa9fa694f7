"""Versions and the state file on disk: whole or absent, checked, set aside when damaged."""

import json

import pytest

from daemon.files import sweep_temporaries
from daemon.paths import LinePaths
from daemon.publish import DamagedVersion, point_current, publish_folder, verify_folder
from daemon.reconcile import sweep_line
from daemon.state_file import refresh_state_file
from schema.leases import StaleFence

STATE = {"line": "tiny", "last_trained_id": 7, "total_training_runs": 1, "current_version": 1}


def publish(source, target):
    return publish_folder(source, target, {"line": "tiny"}, confirm=lambda: None)


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights").write_bytes(b"weights")
    (folder / "sub" / "config").write_text("{}")
    return folder


@pytest.fixture
def version(adapter, tmp_path):
    target = tmp_path / "versions" / "0001"
    target.parent.mkdir()
    publish(adapter, target)
    return target


def test_a_published_folder_lists_the_hash_of_every_file(version):
    manifest = verify_folder(version)

    assert sorted(manifest["files"]) == ["sub/config", "weights"]
    assert manifest["line"] == "tiny"


def test_publishing_again_after_a_crash_changes_nothing(adapter, version):
    before = (version / "manifest.json").read_bytes()

    publish(adapter, version)

    assert (version / "manifest.json").read_bytes() == before


def test_who_may_not_publish_any_more_leaves_nothing(adapter, version):
    (adapter / "weights").write_bytes(b"other weights")
    before = (version / "manifest.json").read_bytes()

    def refuse():
        raise StaleFence("another leads")

    with pytest.raises(StaleFence):
        publish_folder(adapter, version, {"line": "tiny"}, confirm=refuse)

    assert [path.name for path in version.parent.iterdir()] == ["0001"]
    assert (version / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda version: (version / "weights").write_bytes(b"weighty"),
        lambda version: (version / "weights").unlink(),
        lambda version: (version / "more").write_bytes(b""),
        lambda version: (version / "manifest.json").unlink(),
        lambda version: (version / "manifest.json").write_text("{"),
    ],
    ids=["changed", "missing", "added", "no manifest", "broken manifest"],
)
def test_a_damaged_version_is_refused(version, damage):
    damage(version)

    with pytest.raises(DamagedVersion, match="roll back"):
        verify_folder(version)


def test_a_manifest_that_was_swapped_whole_is_refused_by_its_digest(version):
    with pytest.raises(DamagedVersion, match="not the manifest that was published"):
        verify_folder(version, "0" * 64)


def test_current_follows_the_database_and_moves_only_when_it_must(tmp_path):
    paths = LinePaths(tmp_path, "tiny")

    assert not point_current(paths, None)
    assert point_current(paths, 1)
    assert not point_current(paths, 1)
    assert point_current(paths, 2)
    assert str(paths.current.readlink()) == "versions/0002"


def test_temporaries_are_swept_and_named(tmp_path):
    (tmp_path / "a.tmp").write_text("")
    (tmp_path / "b.tmp").mkdir()
    (tmp_path / "kept").write_text("")

    assert sorted(sweep_temporaries(tmp_path)) == ["a.tmp", "b.tmp"]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


LEFT = [
    "state/trainer_state_tiny.json.7.tmp",
    "models/tiny/current.7.tmp",
    "models/tiny/base.7.tmp/weights",
    "models/tiny/versions/0002.7.tmp/weights",
    "runs/tiny/0002/members.jsonl.7.tmp",
    "runs/tiny/0002/adapter.tmp/weights",
    "runs/tiny/0002/adapter/README.md.7.tmp",
    "runs/tiny/0002/checkpoints/checkpoint-00000002.tmp/state",
]
KEPT = [
    "state/trainer_state_tiny.json",
    "models/tiny/versions/0001/weights",
    "runs/tiny/0002/adapter/weights",
    # Other lines, with a process of their own that may be writing just now.
    "state/trainer_state_tiny2.json.7.tmp",
    "models/other/current.7.tmp",
    "models/other/versions/0001.7.tmp/weights",
    "runs/other/0002/members.jsonl.7.tmp",
]


def test_what_killed_writers_left_is_swept_and_other_lines_keep_theirs(tmp_path):
    for name in LEFT + KEPT:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    swept = sweep_line(LinePaths(tmp_path, "tiny"), 2)

    assert len(swept) == len(LEFT)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(KEPT)


def test_the_state_file_is_written_once_and_again_only_when_something_changed(tmp_path):
    path = tmp_path / "state" / "trainer_state_tiny.json"

    assert refresh_state_file(path, STATE)
    assert not refresh_state_file(path, STATE)
    assert refresh_state_file(path, {**STATE, "last_trained_id": 9})
    assert json.loads(path.read_text())["last_trained_id"] == 9
    assert len(list(path.parent.iterdir())) == 1


def test_a_missing_state_file_is_rebuilt(tmp_path):
    path = tmp_path / "state.json"
    refresh_state_file(path, STATE)
    path.unlink()

    assert refresh_state_file(path, STATE)
    assert json.loads(path.read_text())["last_trained_id"] == 7


def test_a_state_file_with_any_byte_changed_is_set_aside_and_rebuilt(tmp_path):
    path = tmp_path / "state.json"
    refresh_state_file(path, STATE)
    whole = path.read_bytes()

    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        refresh_state_file(path, STATE)
        assert path.read_bytes() == whole

    assert len(list(tmp_path.glob("state.json.bad-*"))) == len(whole)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'{"format_version": 1}'])
def test_a_truncated_or_foreign_state_file_is_set_aside(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content)

    assert refresh_state_file(path, STATE)
    assert [one.read_bytes() for one in tmp_path.glob("state.json.bad-*")] == [content]
