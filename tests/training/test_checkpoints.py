"""Checkpoints: whole or passed over, never lost in a replacement, and never worth more than the training."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from daemon.job import Job
from daemon.training import lora
from daemon.training.checkpoints import find_checkpoint, new_checkpoint
from daemon.training.child import Failed, Stopped
from daemon.training.folders import new_folder
from daemon.training.train import train
from schema import failpoints

MakeJob = Callable[..., tuple[Job, Path]]
FILES = ("weights.safetensors", "optimizer.pt", "progress.json")


@pytest.fixture
def arm() -> Iterator[Callable[[str], None]]:
    """Arm failpoints in this process, and disarm them afterwards."""
    yield lambda asked: failpoints.arm({failpoints.ENVIRONMENT_VARIABLE: asked}, "tiny")
    failpoints.arm({}, "tiny")


def save(folder: Path, step: int) -> Path:
    with new_checkpoint(folder, step) as new:
        for name in FILES:
            (new / name).write_text(f"{name} of step {step}")
    return folder / f"checkpoint-{step:08d}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("file", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", [cut, flip, empty, os.unlink])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, file: str, damage: Callable[[Path], None]) -> None:
    before, damaged = save(tmp_path, 3), save(tmp_path, 4)
    damage(damaged / file)
    torn: list[Path] = []
    assert find_checkpoint(tmp_path, torn.append) == before
    assert torn == [damaged]
    damage(before / file)
    assert find_checkpoint(tmp_path) is None


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 11):
        save(tmp_path, step)
    assert names(tmp_path) == ["checkpoint-00000010", "checkpoint-00000011"]


@pytest.mark.parametrize("place", ["before_write", "before_rename", "after_rename"])
@pytest.mark.parametrize("again", [False, True], ids=["a new step", "the same step again"])
def test_a_kill_at_any_place_leaves_a_whole_checkpoint(tmp_path: Path, place: str, again: bool) -> None:
    save(tmp_path, 4)
    program = (
        "import os, pathlib, sys\n"
        "from daemon.training.checkpoints import new_checkpoint\n"
        "from schema import failpoints\n"
        "failpoints.arm(os.environ, 'tiny')\n"
        "with new_checkpoint(pathlib.Path(sys.argv[1]), int(sys.argv[2])) as new:\n"
        "    (new / 'weights').write_text('new')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), "4" if again else "5"],
        env={**os.environ, failpoints.ENVIRONMENT_VARIABLE: f"checkpoint.{place}=kill"}, check=False,
    )  # fmt: skip
    assert ended.returncode == -9
    found = find_checkpoint(tmp_path)
    assert found is not None
    assert set(json.loads((found / "manifest.json").read_text())) <= {*FILES, "weights"}
    save(tmp_path, 6)
    save(tmp_path, 7)
    assert [name for name in names(tmp_path) if not name.endswith(".tmp")] == [
        "checkpoint-00000006",
        "checkpoint-00000007",
    ]


@pytest.mark.parametrize("place", ["before_write", "before_rename"])
@pytest.mark.parametrize("kind", ["enospc", "raise"])
def test_a_folder_that_cannot_be_replaced_stays_and_leaves_no_other(
    tmp_path: Path, arm: Callable[[str], None], place: str, kind: str
) -> None:
    save(tmp_path, 4)
    (tmp_path / "checkpoint-00000004" / "kept").touch()
    arm(f"checkpoint.{place}={kind}")
    with pytest.raises(Failed if kind == "enospc" else failpoints.FailpointHit) as caught:
        save(tmp_path, 4)
    assert names(tmp_path) == ["checkpoint-00000004"]
    assert (tmp_path / "checkpoint-00000004" / "kept").exists()
    if isinstance(caught.value, Failed):
        assert caught.value.failure.reason == "disk"
        assert str(tmp_path / "checkpoint-00000004") in caught.value.failure.message
        assert os.strerror(errno.ENOSPC) in caught.value.failure.message


def test_another_error_is_not_called_the_disks(tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "adapter"):
        raise KeyError("lm_head")
    assert names(tmp_path) == []


def notes_of(child: Any, note: str) -> list[str]:
    return [event["message"] for event in child.of("note") if event["note"] == note]


def test_a_full_disk_costs_checkpoints_not_the_training(
    make_job: MakeJob, recorder: Any, arm: Callable[[str], None]
) -> None:
    job, whole_dir = make_job(24)
    train(job, whole_dir, recorder())
    job, job_dir = make_job(24, checkpoint_interval_s=1e-9)
    arm("checkpoint.before_write=enospc@3,checkpoint.before_rename=enospc@4")  # those of steps 3 and 5
    child = recorder()
    train(job, job_dir, child)
    assert [event["step"] for event in child.of("checkpoint")][:4] == [1, 2, 4, 6]
    told = notes_of(child, "checkpoint_failed")
    assert [message.split(":")[0] for message in told] == ["step 3", "step 5"]
    assert all(str(job_dir / "checkpoints") in message and "No space left" in message for message in told)
    assert not [name for name in names(job_dir / "checkpoints") if not name[-8:].isdigit()]
    expected, found = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (whole_dir, job_dir))
    assert all((expected[name] == found[name]).all() for name in expected)


def test_a_stop_on_a_full_disk_is_still_a_stop_and_says_what_is_lost(
    make_job: MakeJob, recorder: Any, arm: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    job, job_dir = make_job(24)
    arm("checkpoint.before_rename=enospc")
    child = recorder(lambda event: event["event"] == "step" and event["step"] == 2)
    with caplog.at_level(logging.WARNING), pytest.raises(Stopped):
        train(job, job_dir, child)
    assert names(job_dir / "checkpoints") == []
    assert "step 2:" in caplog.text
    assert "No space left" in caplog.text
    assert len(notes_of(child, "checkpoint_failed")) == 1


def test_a_full_disk_under_the_adapter_fails_the_run_with_its_path(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lora, "save_file", full)
    job, job_dir = make_job(2)
    with pytest.raises(Failed, match="No space left") as caught:
        train(job, job_dir, recorder())
    assert caught.value.failure.reason == "disk"
    assert not caught.value.failure.data_caused
    assert str(job_dir / "adapter") in caught.value.failure.message
    assert not [path for path in job_dir.iterdir() if path.name.startswith("adapter")]


def test_with_no_whole_checkpoint_it_starts_again_and_says_so(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(8, checkpoint_interval_s=1e-9)
    whole = recorder()
    train(job, job_dir, whole)
    shutil.rmtree(job_dir / "adapter")
    for path in (job_dir / "checkpoints").iterdir():
        cut(path / "weights.safetensors")
    torn = ", ".join(reversed(names(job_dir / "checkpoints")))
    (job_dir / "checkpoints" / "checkpoint-00000099.tmp").mkdir()
    child = recorder()
    train(job, job_dir, child)
    assert notes_of(child, "checkpoint_torn") == [f"not whole, passed over: {torn}"]
    assert notes_of(child, "resumed") == ["from the beginning"]
    assert [event["loss"] for event in child.of("step")] == [event["loss"] for event in whole.of("step")]
    assert not (job_dir / "checkpoints" / "checkpoint-00000099.tmp").exists()
