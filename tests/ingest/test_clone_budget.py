"""All clones of a machine keep to one budget: the newest gives way, leftovers are evicted."""

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingest.commands import queue_source
from ingest.entries import SourceFailed
from ingest.scratch import check_budget, has_room, repos_folder
from ingest.sources import normalise_source
from ingest.worker import work
from tests.ingest.helpers import SETTINGS, make_code

Fetch = Callable[..., list[tuple[object, ...]]]
_MB = 1 << 20


@pytest.fixture
def make_clone(tmp_path: Path) -> Callable[[str, int, int], Path]:
    """Call it with a name, an age (seconds since it was begun) and a size for a clone under way."""

    def make(name: str, age_s: int, num_bytes: int) -> Path:
        scratch = repos_folder(tmp_path) / name
        (scratch / "clone.git").mkdir(parents=True)
        (scratch / "lock").touch()
        begun = (scratch / "lock").stat().st_mtime - age_s
        os.utime(scratch / "lock", (begun, begun))
        (scratch / "clone.git" / "tmp_pack").write_bytes(bytes(num_bytes))
        return scratch

    return make


@pytest.mark.parametrize(
    ("sizes", "fails"),
    [
        ((1, 1), ""),
        # together too much: the newer one gives way
        ((2, 2), "clones_full"),
        ((1, 2), ""),
        # alone too much: it is never read, however many others there are
        ((1, 4), "clone_too_large"),
        ((4, 1), "clones_full"),
    ],
)
def test_the_newest_clone_gives_way(
    sizes: tuple[int, int], fails: str, make_clone: Callable[[str, int, int], Path]
) -> None:
    older, newer = make_clone("1-a", 60, sizes[0] * _MB), make_clone("2-b", 0, sizes[1] * _MB)
    with_reason = ""
    try:
        check_budget(newer, max_bytes=3 * _MB + 100_000)
    except SourceFailed as error:
        with_reason = error.reason
    assert with_reason == fails
    if sizes[0] <= 3:
        check_budget(older, max_bytes=3 * _MB + 100_000)


def test_leftovers_make_way_and_clones_of_living_workers_do_not(
    make_clone: Callable[[str, int, int], Path], tmp_path: Path
) -> None:
    living, left = make_clone("1-a", 60, _MB), make_clone("2-b", 0, 3 * _MB)
    with (living / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert has_room(tmp_path, max_bytes=2 * _MB)
        assert (living.exists(), left.exists()) == (True, False)
        assert not has_room(tmp_path, max_bytes=_MB)


def test_a_worker_waits_while_the_budget_is_used_up(
    make_clone: Callable[[str, int, int], Path],
    make_repository: Callable[..., Path],
    engine: sa.Engine,
    fetch: Fetch,
    tmp_path: Path,
) -> None:
    """Another worker's clone fills it; when that is gone the source is read, and no failed visit was counted."""
    other = make_clone("1-a", 60, 2 * _MB)
    with engine.begin() as conn:
        queue_source(conn, normalise_source(str(make_repository("tool", {"a.py": make_code("a")}))))
    looks: list[str] = []

    def alive(**_: object) -> None:
        looks.extend(str(state) for (state,) in fetch("SELECT state FROM repositories"))
        if len(looks) == 20:
            (other / "clone.git" / "tmp_pack").unlink()

    with (other / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        settings = SETTINGS.model_copy(update={"clones_max_bytes": _MB})
        work(engine, settings, home=tmp_path, stop=threading.Event(), once=True, alive=alive)
    assert set(looks[:20]) == {"queued"}
    assert fetch("SELECT state, attempts FROM repositories") == [("done", 0)]


def test_a_clone_that_alone_is_above_the_budget_is_refused(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    root = make_repository("large", {f"{number}.bin": os.urandom(200_000) for number in range(12)})
    ingest(root, settings=SETTINGS.model_copy(update={"clones_max_bytes": _MB}))
    assert fetch("SELECT state, reason FROM repositories") == [("refused", "clone_too_large")]
