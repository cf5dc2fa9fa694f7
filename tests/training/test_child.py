"""The child as its parent sees it: a process, a pipe, an exit status."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from daemon.job import Failure, Job

MakeJob = Callable[..., tuple[Job, Path]]


@contextlib.contextmanager
def started(verb: str, job_dir: Path, failpoints: str = "", **more: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(job_dir / "home"), "WANDB_MODE": "disabled"}
    environment |= {"CODELUPE_FAILPOINTS": failpoints, **more}
    with (job_dir / "child.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "daemon.training", verb, str(job_dir)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment,
        )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            pipe.close()


def events_of(child: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    for line in child.stdout or []:
        yield json.loads(line)


def wait_for(child: subprocess.Popen[bytes], **wanted: Any) -> dict[str, Any]:
    return next(event for event in events_of(child) if wanted.items() <= event.items())


def test_it_does_not_outlive_its_parent_and_does_not_share_the_device(make_job: MakeJob) -> None:
    _, job_dir = make_job(2)
    with (job_dir.parents[1] / "device-cpu.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with started("train", job_dir) as child:
            wait_for(child, note="device_busy")
            child.stdin.close()
            assert child.wait() == 1


def test_a_failure_is_said_in_a_file(make_job: MakeJob) -> None:
    _, job_dir = make_job(2, fields={"base": "/nowhere/base", "tick": "b2", "decided_by": "a1"})
    with started("evaluate", job_dir) as child:
        events = list(events_of(child))
        assert child.wait() == 1
    failure = Failure.model_validate_json((job_dir / "error.json").read_text())
    assert failure.reason == "base_missing"
    assert "/nowhere/base" in failure.message
    assert "Traceback" in failure.traceback
    assert {(event["run"], event["tick"], event["decided_by"]) for event in events} == {(1, "b2", "a1")}
    told = next(line for line in (job_dir / "child.log").read_text().splitlines() if "child_failed" in line)
    assert {"reason": "base_missing", "tick": "b2", "decided_by": "a1"}.items() <= json.loads(told).items()


def test_it_completes_a_prefix(make_job: MakeJob, base: Path, tmp_path: Path) -> None:
    job, _ = make_job(1)
    question = {"settings": job.settings.model_dump(), "device": "cpu", "base": str(base), "max_tokens": 3}
    (tmp_path / "question.json").write_text(
        json.dumps({**question, "prefix": "def combine(", "suffix": "\n    return 1"})
    )
    with started("complete", tmp_path) as child:
        assert child.wait() == 0
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert isinstance(answer["text"], str)
    assert answer["num_tokens"] <= 3
