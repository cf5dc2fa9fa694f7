"""Several processes for one source."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.box import make_environment
from ingest.messages import AnyMessage, Ended, Job, read_message
from ingest.nursery import Nursery
from sourcecode.limits import Limits
from tests.ingest.helpers import make_code

# Enough for two processes.
_FILES = {
    **{
        f"module_{number:02}.py": "\n\n".join(make_code(f"f{number}_{part}") for part in range(160))
        for number in range(60)
    },
    "broken.py": "def (((:\n" * 20,
    "short.py": "x = 1\n",
    "tests/test_it.py": make_code("tests"),
}
_LIMITS = {"cpu_s": 60, "memory_bytes": 1 << 29, "file_bytes": 1 << 30, "max_entries": 1000}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """One for all visits of this module."""
    one = Nursery()
    yield one
    one.close()


def visit(nursery: Nursery, source: Path, kind: str, folder: Path, **settings: int) -> list[AnyMessage]:
    """Have a real child visit a source; return what it says."""
    folder.mkdir()
    job = {
        "source": str(source),
        "kind": kind,
        "scratch": str(folder),
        **dict.fromkeys(("licence", "api_licence", "allowed_licences", "head", "last_licence")),
        "must_be_public": False,
        "by_other_rules": False,
        "known": {},
        "refused": {},
        "limits": dataclasses.asdict(Limits()),
        "settings": _LIMITS | settings,
    }
    with (folder / "log").open("wb") as log:
        child = nursery.start(make_environment(str(source), folder), folder, log)
    child.stdin.write(Job.model_validate(job).model_dump_json().encode() + b"\n")
    said = child.stdout.read()
    child.kill()
    return [read_message(line) for line in said.splitlines()]


@pytest.mark.parametrize("kind", ["folder", "git"])
def test_two_processes_say_the_same_in_the_same_order_as_one(
    kind: str,
    nursery: Nursery,
    make_folder: Callable[..., Path],
    make_repository: Callable[..., Path],
    tmp_path: Path,
) -> None:
    root = (make_folder if kind == "folder" else make_repository)("source", _FILES)
    *one, end_of_one = visit(nursery, root, kind, tmp_path / "one", processes=1)
    *two, end_of_two = visit(nursery, root, kind, tmp_path / "two", processes=2)
    assert one == two
    assert isinstance(end_of_one, Ended)
    assert isinstance(end_of_two, Ended)
    assert end_of_one.model_copy(update={"stages": {}}) == end_of_two.model_copy(update={"stages": {}})
    assert end_of_one.stages.keys() == end_of_two.stages.keys()
    assert len(two) == 1 + len(_FILES)


_DEATH = """
import os, signal
from ingest.shares import Helper
helper = Helper(lambda pipe: (pipe.write(b"last\\n"), pipe.flush(), os.kill(os.getpid(), signal.SIGKILL)), 2)
try:
    for line in helper.read_part():
        print(line)
except Exception as error:
    print(error)
"""


def test_how_a_process_was_killed_is_told() -> None:
    done = subprocess.run([sys.executable, "-c", _DEATH], check=True, capture_output=True, text=True)
    assert done.stdout == "b'last\\n'\nchild_died: one of its processes ended, exit status -9\n"
