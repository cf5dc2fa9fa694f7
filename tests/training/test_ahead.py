"""What is made ahead in a process of its own: the same, its failures too; and the process outlives nobody."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.job import MEMBERS, Job
from daemon.training.ahead import making_ahead
from daemon.training.child import Failed, Stopped
from daemon.training.material import Material, make_material
from daemon.training.rows import PackedRows
from tests.waiting import wait_for

MakeJob = Callable[..., tuple[Job, Path]]


def values_of(rows: PackedRows | None) -> Any:
    assert rows is not None
    return [
        [(sample.input_ids.tolist(), sample.input_ids.dtype, sample.prompt_tokens, sample.path) for sample in row]
        for row in rows.rows
    ]


def make_it_wait(job_dir: Path) -> None:
    """Let whoever reads the members wait for a writer who never comes."""
    (job_dir / MEMBERS).unlink()
    os.mkfifo(job_dir / MEMBERS)


def processes_on(job_dir: Path) -> list[int]:
    """Return who has the job in its command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if str(job_dir).encode() in file.read_bytes().split(b"\0"):
                found.append(int(file.parent.name))
    return found


def ignores(process: int, number: signal.Signals) -> bool:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return bool(int(status["SigIgn"], 16) >> (number - 1) & 1)


def make_both(job: Job, job_dir: Path, recorder: Any) -> list[tuple[Material | Failed, list[Any]]]:
    """Return what comes of a job, here and ahead, each with its events."""
    made: list[tuple[Material | Failed, list[Any]]] = []
    here, there = recorder(), recorder()
    with making_ahead(job_dir, there) as take:
        for child, make in ((here, lambda: make_material(job, job_dir, here)), (there, take)):
            try:
                made.append((make(), child.events))
            except Failed as failed:
                made.append((failed, child.events))
    return made


def test_it_is_what_this_process_would_make(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(8, epochs=2)
    (here, events), (there, same_events) = make_both(job, job_dir, recorder)
    assert isinstance(here, Material)
    assert isinstance(there, Material)
    assert values_of(there.rows) == values_of(here.rows)
    assert values_of(there.validation) == values_of(here.validation)
    assert (there.num_samples, same_events) == (here.num_samples, events)


@pytest.mark.parametrize("damage", ["a line", "the tokenizer", "no samples"])
def test_it_fails_as_this_process_would(make_job: MakeJob, recorder: Any, damage: str) -> None:
    fields = {"base": "/nowhere/base"} if damage == "the tokenizer" else {}
    job, job_dir = make_job(2, fields=fields)
    if damage != "the tokenizer":
        (job_dir / MEMBERS).write_text("{}\n" if damage == "a line" else "")
    (here, _), (there, _) = make_both(job, job_dir, recorder)
    assert isinstance(here, Failed)
    assert isinstance(there, Failed)
    assert there.failure == here.failure


def test_a_stop_ends_the_wait_and_the_process(make_job: MakeJob, recorder: Any) -> None:
    _, job_dir = make_job(2)
    make_it_wait(job_dir)
    child = recorder()
    child.request_stop()
    with making_ahead(job_dir, child) as take, pytest.raises(Stopped):
        take()
    assert processes_on(job_dir) == []


def test_a_process_that_is_killed_fails_the_run(make_job: MakeJob, recorder: Any) -> None:
    _, job_dir = make_job(2)
    make_it_wait(job_dir)
    with making_ahead(job_dir, recorder()) as take:
        (process,) = wait_for(lambda: processes_on(job_dir))
        os.kill(process, signal.SIGKILL)
        with pytest.raises(Failed, match="ended with status -9"):
            take()


def test_it_ends_when_its_parent_does_and_not_by_a_signal_to_the_group(make_job: MakeJob) -> None:
    _, job_dir = make_job(2)
    make_it_wait(job_dir)
    command = [sys.executable, "-m", "daemon.training.ahead", str(job_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        wait_for(lambda: ignores(process.pid, signal.SIGTERM), "ignoring a signal")
        process.send_signal(signal.SIGTERM)
        process.stdin.close()
        assert process.wait() == 1
