"""Visiting again: what is unchanged costs one request, what changed its blobs, and what is due comes by itself."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingest.commands import queue_source
from ingest.policy import name_settings
from ingest.rescans import rescan
from ingest.sources import normalise_source
from ingest.worker import work
from schema.rescans import add_licences
from tests.ingest.helpers import SETTINGS, git, make_code
from tests.ingest.servers import Server, serve_git

Fetch = Callable[..., list[tuple[object, ...]]]
_FILES = "SELECT file_path, excluded_reason FROM processed_files ORDER BY file_path, id"
_REFUSED = "SELECT file_path, reason FROM refused_files ORDER BY file_path"
_STATE = "SELECT state, reason FROM repositories"
_BROKEN = "def f(:\n" * 40
_LONG_AGO = "UPDATE repositories SET visited_at = now() - interval '2 days', not_before = now() - interval '2 days'"
_AGAIN = "UPDATE repositories SET state = 'queued'"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A git server over the test's folder that keeps its requests."""
    with serve_git(tmp_path) as running:
        yield running


@pytest.fixture
def revisit(engine: sa.Engine, ingest: Callable[..., None]) -> Callable[[], None]:
    """Call it to have every source visited again, as after the interval."""

    def run() -> None:
        with engine.begin() as conn:
            conn.execute(sa.text(_LONG_AGO))
        assert rescan(engine, SETTINGS) == 1
        ingest()

    return run


def test_an_unchanged_repository_costs_one_request_and_a_changed_one_its_changed_blobs(
    make_repository: Callable[..., Path],
    ingest: Callable[..., None],
    revisit: Callable[[], None],
    fetch: Fetch,
    server: Server,
) -> None:
    root = make_repository("alice/tool", {name: make_code(name[0]) for name in ("a.py", "b.py", "c.py")})
    ingest(f"{server.url}/alice/tool")
    [(first,)] = fetch("SELECT visited_at FROM repositories")
    server.requests.clear()

    revisit()
    assert server.requests == ["GET /alice/tool/info/refs?service=git-upload-pack"]
    assert fetch("SELECT state, reason, attempts, local_path, visited_at > :first FROM repositories", first=first) == [
        ("done", None, 0, None, True)
    ]
    assert fetch(_FILES) == [("a.py", None), ("b.py", None), ("c.py", None)]

    (root / "c.py").unlink()
    make_repository("alice/tool", {"b.py": make_code("better")})
    revisit()
    assert fetch(_FILES) == [("a.py", None), ("b.py", "superseded"), ("b.py", None), ("c.py", "vanished")]
    assert fetch("SELECT count(*) FROM training_queue") == fetch(
        "SELECT count(*) FROM processed_files f JOIN lines l ON true WHERE f.excluded_reason IS NULL"
    )
    assert fetch("SELECT head_commit FROM repositories") == [(git(root, "rev-parse", "HEAD"),)]


def test_a_refused_file_that_is_gone_is_not_listed_any_more(
    make_repository: Callable[..., Path], ingest: Callable[..., None], revisit: Callable[[], None], fetch: Fetch
) -> None:
    root = make_repository("tool", {"a.py": make_code("a"), "test_b.py": make_code("b"), "bad.py": _BROKEN})
    ingest(root)
    git(root, "rm", "-q", "test_b.py")
    make_repository("tool", {"a.py": make_code("newer")})
    revisit()
    assert fetch(_REFUSED) == [("bad.py", "syntax")]
    # Nothing is left that could be accepted.
    git(root, "rm", "-q", "bad.py")
    make_repository("tool", {"a.py": _BROKEN})
    revisit()
    git(root, "mv", "a.py", "c.py")
    make_repository("tool", {"d.md": "words"})
    revisit()
    assert fetch(_REFUSED) == [("c.py", "syntax")]


def test_a_refused_file_is_not_read_again_before_it_changes(
    make_repository: Callable[..., Path], ingest: Callable[..., None], revisit: Callable[[], None], fetch: Fetch
) -> None:
    """It counts as refused all the same."""
    root = make_repository("tool", {"a.py": make_code("a"), "bad.py": _BROKEN, "test_b.py": make_code("b")})
    ingest(root)
    make_repository("tool", {"a.py": make_code("newer")})
    revisit()
    visit = "SELECT visit_bytes, refusals, file_count FROM repositories"
    assert fetch(visit) == [(len(make_code("newer")), {"syntax": 1, "test": 1}, 1)]
    assert fetch(_REFUSED) == [("bad.py", "syntax"), ("test_b.py", "test")]
    make_repository("tool", {"bad.py": make_code("mended")})
    revisit()
    assert fetch(visit) == [(len(make_code("mended")), {"test": 1}, 2)]
    assert fetch(_REFUSED) == [("test_b.py", "test")]


def test_an_unchanged_local_repository_is_not_cloned(
    make_repository: Callable[..., Path],
    ingest: Callable[..., None],
    revisit: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ingest(make_repository("local", {"a.py": make_code("a")}))
    caplog.clear()
    caplog.set_level("INFO")
    revisit()
    [done] = [record for record in caplog.records if getattr(record, "event", "") == "repository_done"]
    assert (getattr(done, "stages", None), "1 unchanged" in done.getMessage()) == ({}, True)


def test_adding_a_source_again_reads_it_whatever_its_newest_commit_is(
    make_repository: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch, server: Server
) -> None:
    """By other settings it may give other files."""
    make_repository("alice/tool", {"a.py": make_code("a"), "tests/test_b.py": make_code("b")})
    ingest(f"{server.url}/alice/tool")
    ingest(f"{server.url}/alice/tool", settings=SETTINGS.model_copy(update={"keep_tests": True}))
    assert fetch(_FILES) == [("a.py", None), ("tests/test_b.py", None)]


def test_a_visit_that_was_broken_off_is_not_taken_for_done(
    make_repository: Callable[..., Path],
    ingest: Callable[..., None],
    engine: sa.Engine,
    fetch: Fetch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it stored is that of a newer commit; the one before is no proof any more that nothing has changed."""
    root = make_repository("tool", {"a.py": make_code("a")})
    ingest(root)
    make_repository("tool", {"a.py": make_code("newer")})

    def fail(*_: object, **__: object) -> None:
        raise ValueError("in the middle")

    with monkeypatch.context() as context:
        context.setattr("ingest.handling.finish_repository", fail)
        with engine.begin() as conn:
            conn.execute(sa.text(_AGAIN))
        ingest(settings=SETTINGS.model_copy(update={"max_attempts": 1}))
    assert fetch("SELECT state, head_commit FROM repositories") == [("dead", None)]
    git(root, "reset", "-q", "--hard", "HEAD~1")
    with engine.begin() as conn:
        conn.execute(sa.text(f"{_AGAIN}, attempts = 0"))
    ingest()
    assert fetch("SELECT content FROM processed_files WHERE excluded_reason IS NULL") == [(make_code("a"),)]


DUE = [
    # state, reason, origin, seconds since the last visit, queued again
    ("done", None, "operator", 90_000, True),
    ("done", None, "operator", 80_000, False),
    ("done", None, "operator", -90_000, True),  # the clock was set back
    ("refused", "empty", "operator", 90_000, True),
    ("refused", "nothing_accepted", "operator", 90_000, True),
    ("refused", "opted_out", "operator", 90_000, False),
    ("refused", "clone_too_large", "operator", 90_000, False),
    ("refused", "not_found", "operator", 90_000, True),
    ("refused", "not_found", "operator", 80_000, False),
    ("refused", "not_found", "crawler", 90_000, False),
    ("dead", "clone_failed", "operator", 90_000, True),
    ("dead", "clone_failed", "operator", 80_000, False),
    ("dead", "clone_failed", "operator", -90_000, True),
    ("dead", "clone_failed", "crawler", 90_000, False),
    ("working", None, "operator", 90_000, False),
    ("done", None, "crawler", 90_000, False),
]


def test_what_was_named_is_due_after_the_interval(engine: sa.Engine, fetch: Fetch) -> None:
    insert = sa.text(
        "INSERT INTO repositories (source, kind, name, state, reason, origin, visited_at, not_before, judged_by)"
        " VALUES (:source, 'folder', 'x', :state, :reason, :origin, now() - make_interval(secs => :age),"
        " now() - make_interval(secs => :age), :rules)"
    )
    with engine.begin() as conn:
        for number, (state, reason, origin, age, _) in enumerate(DUE):
            rules = add_licences(name_settings(origin, SETTINGS), api=None, stated=None)
            values = {"source": str(number), "state": state, "reason": reason, "origin": origin, "age": age}
            conn.execute(insert, values | {"rules": rules})
    assert rescan(engine, SETTINGS.model_copy(update={"rescan_interval_s": 0})) == 0
    rescan(engine, SETTINGS)
    queued = dict(fetch("SELECT source, state = 'queued' FROM repositories"))
    assert queued == {str(number): is_due for number, (*_, is_due) in enumerate(DUE)}


def test_a_folder_that_was_missing_is_read_when_it_is_there_again(
    make_folder: Callable[..., Path],
    ingest: Callable[..., None],
    revisit: Callable[[], None],
    engine: sa.Engine,
    fetch: Fetch,
) -> None:
    root = make_folder("mounted", {"a.py": make_code("a")})
    ingest(root)
    root.rename(root.with_name("away"))
    for _ in range(2):
        revisit()
        assert fetch(_STATE) == [("refused", "not_found")]
        assert rescan(engine, SETTINGS) == 0
    root.with_name("away").rename(root)
    make_folder("mounted", {"a.py": make_code("newer")})
    revisit()
    assert fetch(_STATE) == [("done", None)]
    assert fetch(_FILES) == [("a.py", "superseded"), ("a.py", None)]


def test_a_dead_source_is_tried_once_an_interval(
    make_repository: Callable[..., Path],
    ingest: Callable[..., None],
    revisit: Callable[[], None],
    engine: sa.Engine,
    fetch: Fetch,
    server: Server,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_repository("alice/tool", {"a.py": make_code("a")})
    ingest("http://127.0.0.1:9/alice/tool", settings=SETTINGS.model_copy(update={"max_attempts": 1}))
    for _ in range(2):
        caplog.clear()
        revisit()
        ends = [str(getattr(record, "event", "")) for record in caplog.records]
        assert [event for event in ends if event.startswith("repository_")] == ["repository_dead"]
        assert fetch(_STATE) == [("dead", "clone_failed")]
        assert rescan(engine, SETTINGS) == 0
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE repositories SET source = :url"), {"url": f"{server.url}/alice/tool"})
    revisit()
    assert fetch(f"{_STATE} WHERE attempts = 0") == [("done", None)]


def test_a_running_worker_sees_a_change_of_a_folder_by_itself(
    make_folder: Callable[..., Path], engine: sa.Engine, fetch: Fetch, tmp_path: Path
) -> None:
    root = make_folder("tool", {"a.py": make_code("a")})
    with engine.begin() as conn:
        queue_source(conn, normalise_source(str(root)))
    stop = threading.Event()
    settings = SETTINGS.model_copy(update={"rescan_interval_s": 1})
    worker = threading.Thread(target=work, args=(engine, settings), kwargs={"home": tmp_path / "home", "stop": stop})
    worker.start()
    try:
        wait_for_rows(fetch, "SELECT 1 FROM repositories WHERE state = 'done'")
        (root / "a.py").write_text(make_code("newer"))
        wait_for_rows(fetch, "SELECT 1 FROM processed_files WHERE excluded_reason = 'superseded'")
    finally:
        stop.set()
        worker.join()
    assert fetch("SELECT content FROM processed_files WHERE excluded_reason IS NULL") == [(make_code("newer"),)]


def wait_for_rows(fetch: Fetch, sql: str, **values: object) -> None:
    """Look until there are some; fail after 180 s."""
    until = time.monotonic() + 180
    while not fetch(sql, **values):
        assert time.monotonic() < until, sql
        time.sleep(0.02)
