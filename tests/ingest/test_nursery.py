"""Children that are forked by a process which has imported what they need."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.nursery import Nursery, Nursling
from tests.waiting import DEADLINE_S, wait_for

_WORKER = """
import sys, pathlib, tempfile
from ingest.nursery import Nursery
nursery = Nursery()
with tempfile.TemporaryFile() as log:
    child = nursery.start({}, pathlib.Path(sys.argv[1]), log)
    print(child.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    """One that ends with the test."""
    one = Nursery()
    yield one
    one.close()


def start(nursery: Nursery, folder: Path) -> Nursling:
    """Start a child that waits for its job."""
    with (folder / "log").open("wb") as log:
        return nursery.start({"HOME": str(folder)}, folder, log)


def parent_of(pid: int) -> int:
    """Return the parent of a process, 0 when it is gone or dead."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
    except OSError:
        return 0
    return 0 if state == "Z" else int(parent)


def test_a_child_leads_a_process_group_in_its_own_folder(nursery: Nursery, tmp_path: Path) -> None:
    child = start(nursery, tmp_path)
    wait_for(lambda: Path(f"/proc/{child.pid}/cwd").readlink() == tmp_path)
    assert os.getpgid(child.pid) == child.pid != os.getpgrp()
    child.kill()
    assert parent_of(child.pid) == 0


def test_how_a_child_ended_is_known_until_it_is_buried(nursery: Nursery, tmp_path: Path) -> None:
    child = start(nursery, tmp_path)
    assert child.await_end(timeout_s=0) is None
    os.kill(child.pid, signal.SIGTERM)
    assert [child.await_end(timeout_s=DEADLINE_S) for _ in range(2)] == [-signal.SIGTERM] * 2
    child.kill()
    child.kill()


def test_a_nursery_that_was_killed_is_started_again(nursery: Nursery, tmp_path: Path) -> None:
    orphan = start(nursery, tmp_path)
    os.kill(parent_of(orphan.pid), signal.SIGKILL)
    other = start(nursery, tmp_path)
    assert parent_of(other.pid) not in (0, parent_of(orphan.pid))
    orphan.kill()
    other.kill()
    wait_for(lambda: parent_of(orphan.pid) == 0)


def test_a_worker_that_is_killed_leaves_neither_nursery_nor_child(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        nursery = parent_of(child)
        assert nursery not in (0, worker.pid)
        worker.kill()
    wait_for(lambda: parent_of(nursery) == 0 and parent_of(child) == 0)
