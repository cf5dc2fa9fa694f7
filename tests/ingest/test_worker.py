"""The worker's life: killed, stopped, overtaken, cut off from its database."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingest.alive import say_nothing, wait_alive
from ingest.commands import queue_source
from ingest.scratch import repos_folder, sweep_scratch
from ingest.sources import normalise_source
from ingest.worker import Worker, ingest_one, work
from schema.backlog import lock_ingest
from schema.database import create_engine
from schema.repositories import claim_repository
from tests.ingest.helpers import SETTINGS, make_code

Fetch = Callable[..., list[tuple[object, ...]]]
_STATE = "SELECT state, reason, lease_token FROM repositories"
_WORK = """
import sys, threading
from pathlib import Path
from ingest.worker import work
from schema import failpoints
from schema.database import create_engine
from schema.repositories import claim_repository
from tests.ingest.helpers import SETTINGS
failpoints.arm({"CODELUPE_FAILPOINTS": sys.argv[3]}, "tiny")
engine = create_engine(sys.argv[1], application_name="killed worker")
settings = SETTINGS.model_copy(update={"lease_s": 3})
work(engine, settings, home=Path(sys.argv[2]), stop=threading.Event(), once=True)
"""


@pytest.fixture
def queued(make_folder: Callable[..., Path], engine: sa.Engine) -> Path:
    """A folder with eight files, in the queue."""
    root = make_folder("source", {f"{name}.py": make_code(name) for name in "abcdefgh"})
    with engine.begin() as conn:
        queue_source(conn, normalise_source(str(root)))
    return root


def expire_leases(engine: sa.Engine) -> None:
    """Let the time of every lease pass."""
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE repositories SET lease_until = now() - interval '1 second'"))


def make_worker(engine: sa.Engine, tmp_path: Path, **settings: object) -> Worker:
    """Return a worker that nobody stops."""
    return Worker(engine, SETTINGS.model_copy(update=settings), tmp_path / "home", threading.Event())


@pytest.mark.parametrize("failpoint", ["ingest.before_save", "ingest.after_save", "ingest.before_finish"])
def test_a_killed_worker_is_resumed_by_the_next_one(
    failpoint: str, queued: Path, engine: sa.Engine, database_url: str, fetch: Fetch, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _WORK, database_url, str(tmp_path / "home"), f"{failpoint}=kill"]
    assert subprocess.run(command, cwd=Path.cwd()).returncode == -signal.SIGKILL
    assert fetch(_STATE)[0][0] == "working"
    expire_leases(engine)
    work(engine, SETTINGS, home=tmp_path / "home", stop=threading.Event(), once=True)
    assert fetch(_STATE) == [("done", None, None)]
    assert fetch("SELECT count(*), count(DISTINCT file_path), count(excluded_reason) FROM processed_files") == [
        (8, 8, 0)
    ]
    assert list(repos_folder(tmp_path / "home").iterdir()) == []


def test_a_worker_that_was_killed_takes_its_child_with_it(
    engine: sa.Engine, database_url: str, tmp_path: Path, hanging_server: str
) -> None:
    with engine.begin() as conn:
        queue_source(conn, normalise_source(f"{hanging_server}/alice/tool"))
    command = [sys.executable, "-c", _WORK, database_url, str(tmp_path / "home"), ""]
    worker = subprocess.Popen(command, cwd=Path.cwd())
    wait_for(lambda: is_cloning(tmp_path))
    worker.kill()
    worker.wait()
    wait_for(lambda: not processes_in(tmp_path))
    assert sweep_scratch(tmp_path / "home") == 1


def test_a_stopped_worker_kills_its_child_and_gives_the_claim_back(
    engine: sa.Engine, fetch: Fetch, tmp_path: Path, hanging_server: str
) -> None:
    with engine.begin() as conn:
        queue_source(conn, normalise_source(f"{hanging_server}/alice/tool"))
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(engine, SETTINGS), kwargs={"home": tmp_path / "home", "stop": stop})
    thread.start()
    wait_for(lambda: is_cloning(tmp_path))
    stop.set()
    thread.join()
    wait_for(lambda: not processes_in(tmp_path))
    assert fetch(_STATE) == [("queued", "stopped", None)]
    assert fetch("SELECT not_before <= now(), attempts FROM repositories") == [(True, 0)]
    assert list(repos_folder(tmp_path / "home").iterdir()) == []


def test_a_child_that_is_killed_leaves_no_git_behind(
    engine: sa.Engine, fetch: Fetch, tmp_path: Path, hanging_server: str
) -> None:
    with engine.begin() as conn:
        queue_source(conn, normalise_source(f"{hanging_server}/alice/tool"))
    thread = threading.Thread(target=ingest_one, args=(make_worker(engine, tmp_path, retry_delay_s=1000),))
    thread.start()
    wait_for(lambda: is_cloning(tmp_path))
    child = next(number for number, command in processes_in(tmp_path).items() if "ingest.nursery" in command)
    os.kill(child, signal.SIGKILL)
    thread.join()
    wait_for(lambda: not processes_in(tmp_path))
    assert fetch(_STATE) == [("queued", "child_died", None)]


def test_a_clone_that_takes_too_long_is_killed_and_tried_again(
    engine: sa.Engine, fetch: Fetch, tmp_path: Path, hanging_server: str
) -> None:
    with engine.begin() as conn:
        queue_source(conn, normalise_source(f"{hanging_server}/alice/tool"))
    assert ingest_one(make_worker(engine, tmp_path, clone_timeout_s=1, retry_delay_s=1000))
    assert fetch(_STATE) == [("queued", "timeout", None)]
    assert fetch("SELECT not_before > now() + interval '900 s' FROM repositories") == [(True,)]
    assert not ingest_one(make_worker(engine, tmp_path))


def test_a_child_that_breaks_its_memory_limit_costs_a_try(
    make_folder: Callable[..., Path], engine: sa.Engine, fetch: Fetch, tmp_path: Path
) -> None:
    root = make_folder("huge", {"huge.py": "number = 1\n" * 700_000})
    with engine.begin() as conn:
        queue_source(conn, normalise_source(str(root)))
    limits = {"child_memory_bytes": 30_000_000, "max_file_bytes": 16_000_000}
    assert ingest_one(make_worker(engine, tmp_path, retry_delay_s=1000, **limits))
    assert fetch(_STATE) == [("queued", "out_of_memory", None)]


def test_a_child_that_breaks_its_processor_limit_costs_a_try(
    make_folder: Callable[..., Path], engine: sa.Engine, fetch: Fetch, tmp_path: Path
) -> None:
    """Ten files that each take the parser its whole time."""
    root = make_folder("slow", {f"{number}.dart": "/*" * (60_000 + number) for number in range(10)})
    with engine.begin() as conn:
        queue_source(conn, normalise_source(str(root)))
    limits = {"child_cpu_s": 1, "max_line_chars": 1_000_000}
    assert ingest_one(make_worker(engine, tmp_path, retry_delay_s=1000, **limits))
    assert fetch(_STATE) == [("queued", "child_died", None)]


def test_a_worker_that_lost_its_claim_saves_nothing(
    queued: Path, engine: sa.Engine, fetch: Fetch, tmp_path: Path
) -> None:
    def overtake(*, once: list[bool] = [], **_: object) -> None:  # noqa: B006 - remembers that it has happened
        if fetch(_STATE)[0][0] == "working" and not once:
            once.append(True)
            expire_leases(engine)
            with engine.begin() as conn:
                conn.execute(sa.text("UPDATE repositories SET lease_token = 'another'"))

    assert ingest_one(make_worker(engine, tmp_path), overtake)
    assert fetch("SELECT count(*) FROM processed_files") == [(0,)]
    assert fetch("SELECT lease_token FROM repositories") == [("another",)]


def test_a_repository_that_takes_its_workers_along_is_buried(
    queued: Path, engine: sa.Engine, fetch: Fetch, tmp_path: Path
) -> None:
    for attempt in (1, 2):
        with engine.begin() as conn:
            claim = claim_repository(conn, lease_s=60)
        assert claim is not None
        assert claim.attempts == attempt
        expire_leases(engine)
    assert ingest_one(make_worker(engine, tmp_path, max_attempts=2))
    assert fetch(_STATE) == [("dead", "worker_died", None)]
    assert fetch("SELECT count(*) FROM processed_files") == [(0,)]


def test_the_last_attempt_of_a_repository_is_made(
    queued: Path, engine: sa.Engine, fetch: Fetch, tmp_path: Path
) -> None:
    with engine.begin() as conn:
        assert claim_repository(conn, lease_s=60) is not None
    expire_leases(engine)
    assert ingest_one(make_worker(engine, tmp_path, max_attempts=2))
    assert fetch(_STATE) == [("done", None, None)]


def test_an_idle_step_says_so(engine: sa.Engine, tmp_path: Path) -> None:
    assert ingest_one(make_worker(engine, tmp_path)) is False


def test_two_workers_share_the_queue(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    roots = [make_folder(f"s{number}", {"a.py": make_code(f"s{number}")}) for number in range(4)]
    ingest(*roots, settings=SETTINGS.model_copy(update={"ingest_workers": 2}))
    assert fetch("SELECT state, count(*) FROM repositories GROUP BY state") == [("done", 4)]
    assert fetch("SELECT count(*) FROM processed_files") == [(4,)]


def test_an_outage_is_waited_for(queued: Path, engine: sa.Engine, fetch: Fetch, tmp_path: Path) -> None:
    """The database cuts the worker off at its first look at the queue."""
    calls: list[int] = []

    def cut_off(**_: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            with engine.begin() as conn:
                conn.execute(
                    sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
                )

    work(engine, SETTINGS, home=tmp_path / "home", stop=threading.Event(), once=True, alive=cut_off)
    assert fetch(_STATE) == [("done", None, None)]


def test_a_lock_that_another_holds_for_long_costs_no_try(
    queued: Path,
    engine: sa.Engine,
    database_url: str,
    fetch: Fetch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("schema.database.LOCK_TIMEOUT_S", 1)
    hasty = create_engine(database_url, application_name="hasty")
    worker = make_worker(hasty, tmp_path, max_attempts=1)

    with engine.begin() as conn:
        lock_ingest(conn)
        with pytest.raises(sa.exc.OperationalError):
            ingest_one(worker)
    assert ingest_one(worker)

    hasty.dispose()
    assert fetch("SELECT state, attempts FROM repositories") == [("done", 0)]


def test_a_long_wait_gives_signs_of_life_and_ends_when_it_is_time_to_stop() -> None:
    stop, signs = threading.Event(), []

    def alive(**_: object) -> None:
        signs.append(True)
        if len(signs) == 4:
            stop.set()

    assert wait_alive(stop, 1e6, alive, slice_s=0.01)
    assert len(signs) == 4


def test_a_wait_lasts_as_long_as_it_is_to() -> None:
    begun = time.monotonic()
    assert not wait_alive(threading.Event(), 0.1, say_nothing, slice_s=0.02)
    assert time.monotonic() - begun >= 0.1


def test_an_outage_is_told_by_the_loop_and_lived_through(tmp_path: Path) -> None:
    """Nothing listens on port 9."""
    nowhere = create_engine("postgresql+psycopg://alice@127.0.0.1:9/nothing", application_name="tests")
    worker, told = make_worker(nowhere, tmp_path), []

    def alive(*, database_up: bool | None = None, **_: object) -> None:
        told.append(database_up)
        if database_up is not None:
            worker.stop.set()

    work(nowhere, worker.settings, home=worker.home, stop=worker.stop, alive=alive)
    assert told[-2:] == [False, None]
    nowhere.dispose()


def processes_in(folder: Path) -> dict[int, str]:
    """Return the command lines of the processes that work in a folder or below it, by process id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((process / "cwd").readlink()).startswith(str(folder)):
                found[int(process.name)] = (process / "cmdline").read_text()
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    """Look until it holds; fail after 180 s."""
    until = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def is_cloning(folder: Path) -> bool:
    """Say whether a git is talking HTTP there."""
    return any("remote-http" in command for command in processes_in(folder).values())
