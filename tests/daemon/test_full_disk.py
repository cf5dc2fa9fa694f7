"""A disk that is full: nothing half done stays, nothing is lost, it is told, and it goes on by itself."""

import errno
import json
import os
from types import SimpleNamespace

import pytest

from daemon.files import TEMPORARY, describe_error, flip_symlink, write_atomically, write_lines
from daemon.publish import verify_folder
from daemon.status import Reporter
from schema import failpoints
from schema.audit import audit
from schema.lines import fetch_line
from tests.daemon.fake_child import FakeChild, loop_of


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes | {"bootstrap_rounds": 200})


@pytest.fixture
def full_at():
    def arm(point, nth=1):
        failpoints.arm({failpoints.ENVIRONMENT_VARIABLE: f"{point}=enospc@{nth}"}, "tiny")

    yield arm
    failpoints.arm({}, "tiny")


def health_of(ctx):
    return Reporter(ctx, SimpleNamespace(daemon=ctx.settings)).health()


def temporaries_below(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(TEMPORARY)]


@pytest.mark.parametrize(
    ("point", "nth", "where"),
    [
        ("file.before_sync", 1, "trainer_state_micro.json"),
        ("file.before_sync", 2, "members.jsonl"),
        ("file.before_sync", 8, "adapter/ATTRIBUTIONS.jsonl"),
        ("file.before_sync", 9, "adapter/README.md"),
        ("file.before_sync", 10, "versions/0001"),  # its manifest
        ("publish.before_copy", 1, "versions/0001"),
        ("publish.before_copy", 2, "versions/0001"),
        ("publish.before_rename", 1, "versions/0001"),
        ("publish.before_symlink", 1, "current"),
        ("state_file.before_rename", 2, ""),
    ],
)
def test_a_round_on_a_full_disk_waits_says_so_and_is_finished_when_there_is_space(
    ctx, engine, rows, monkeypatch, full_at, point, nth, where
):
    rows()
    child = FakeChild()
    monkeypatch.setattr("daemon.rounds.run_child", child)
    loop = loop_of(ctx)
    full_at(point, nth)

    loop.run()

    health = health_of(ctx)
    assert (health["status"], health["reasons"][0]) == ("degraded", "step_failing")
    assert "the disk is full" in health["details"]["step"]
    assert "free space, or move CODELUPE_HOME" in health["details"]["step"]
    assert where in health["details"]["step"]
    assert temporaries_below(ctx.paths.home) == []

    loop.run()  # the failpoint strikes once: there is space again

    with engine.connect() as conn:
        assert fetch_line(conn, "micro").current_version == 1
        assert audit(conn).by_state["trained"] == 40
    verify_folder(ctx.paths.version(1))
    assert json.loads(ctx.paths.state_file.read_text())["current_version"] == 1
    assert len(child.seen) == 1, "what was trained is not trained again"
    assert "step_failing" not in health_of(ctx)["reasons"]
    assert "step" not in health_of(ctx).get("details", {})


@pytest.mark.parametrize(
    ("write", "point"),
    [
        (lambda path: write_atomically(path, b"new"), "file.before_sync"),
        (lambda path: write_lines(path, ["new"]), "file.before_sync"),
        (lambda path: flip_symlink(path, "new"), "publish.before_symlink"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_and_nothing_else(tmp_path, full_at, write, point):
    path = tmp_path / "file"
    path.write_text("old")
    full_at(point)

    with pytest.raises(OSError, match=str(path)) as caught:
        write(path)

    assert caught.value.errno == errno.ENOSPC
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "old")]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"),
            "the disk is full at /data/x: free space, or move CODELUPE_HOME to a larger disk (No space left on device)",
        ),
        (
            OSError(errno.EDQUOT, "quota"),
            "the disk is full: free space, or move CODELUPE_HOME to a larger disk (quota)",
        ),
        (ValueError("wrong\nand much more"), "ValueError: wrong"),
    ],
)
def test_an_error_is_told_in_words(error, words):
    assert describe_error(error) == words
