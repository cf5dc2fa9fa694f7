"""No space for a visit: nothing is lost, nothing dies, and the worker goes on when there is some."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingest.commands import queue_source
from ingest.sources import normalise_source
from ingest.worker import DiskFull, Worker, ingest_one, work
from monitoring.metrics import REGISTRY
from schema import failpoints
from tests.ingest.helpers import SETTINGS, make_code

Fetch = Callable[..., list[tuple[object, ...]]]
_STATE = "SELECT state, reason, attempts, not_before > now() + interval '250 s' FROM repositories"


@pytest.fixture
def queued(make_folder: Callable[..., Path], engine: sa.Engine) -> Path:
    """A folder with four files, in the queue."""
    root = make_folder("source", {f"{name}.py": make_code(name) for name in "abcd"})
    with engine.begin() as conn:
        queue_source(conn, normalise_source(str(root)))
    return root


@pytest.fixture
def fill_disk() -> Iterator[Callable[[str], None]]:
    """Call it with the place that finds no space, once."""
    yield lambda name: failpoints.arm({failpoints.ENVIRONMENT_VARIABLE: f"{name}=enospc"}, "tiny")
    failpoints.arm({}, "tiny")


@pytest.mark.parametrize("place", ["ingest.before_scratch", "ingest.before_save", "ingest.after_save"])
def test_the_source_is_given_back_with_a_delay_and_does_not_die_of_it(
    place: str,
    fill_disk: Callable[[str], None],
    queued: Path,
    engine: sa.Engine,
    fetch: Fetch,
    tmp_path: Path,
) -> None:
    worker = Worker(
        engine,
        SETTINGS.model_copy(update={"max_attempts": 1, "retry_delay_s": 30}),
        tmp_path / "home",
        threading.Event(),
    )
    before = REGISTRY.get_sample_value("codelupe_ingest_repositories_total", {"outcome": "disk_full"})
    for _ in range(2):
        fill_disk(place)
        with pytest.raises(DiskFull, match="home/repos"):
            ingest_one(worker)
        assert fetch(_STATE) == [("queued", "disk_full", 0, True)]
        assert list((tmp_path / "home" / "repos").iterdir()) == []
        fetch("UPDATE repositories SET not_before = now() RETURNING id")
    assert ingest_one(worker)
    assert fetch(_STATE) == [("done", None, 0, False)]
    assert fetch("SELECT count(*), count(DISTINCT file_path) FROM processed_files") == [(4, 4)]
    assert REGISTRY.get_sample_value("codelupe_ingest_repositories_total", {"outcome": "disk_full"}) == before + 2


def test_the_worker_says_so_and_goes_on_by_itself(
    fill_disk: Callable[[str], None], queued: Path, engine: sa.Engine, fetch: Fetch, tmp_path: Path
) -> None:
    told: list[str] = []

    def alive(*, full_disk: str | None = None, **_: object) -> None:
        if full_disk is not None:
            told.append(full_disk)

    fill_disk("ingest.before_save")
    work(engine, SETTINGS, home=tmp_path / "home", stop=threading.Event(), once=True, alive=alive)
    assert told == [str(tmp_path / "home" / "repos"), ""]
    assert fetch(_STATE) == [("done", None, 0, False)]
