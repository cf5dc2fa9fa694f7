"""The configured opt-out files, as every process that takes code obeys them: at its start and when they change."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingest.opt_outs import OptOutFiles
from ingest.serving import ingest_beside
from ingest.worker import work
from monitoring.progress import Progress
from schema.lines import open_line
from tests.builders import add_files, add_repository
from tests.ingest.helpers import SETTINGS, Settings
from tests.waiting import wait_for

STATES = "SELECT source, reason FROM repositories ORDER BY id"


@pytest.fixture
def stored(engine: sa.Engine) -> None:
    """Files of alice and of bob, which wait to be trained on."""
    with engine.begin() as conn:
        open_line(conn, name="qwen", base_model="base")
        for owner in ("alice", "bob"):
            add_files(conn, add_repository(conn, f"https://github.com/{owner}/tool"), 2)


@contextmanager
def run_worker(engine: sa.Engine, settings: Settings) -> Iterator[None]:
    """What `codelupe ingest work` runs."""
    stop = threading.Event()
    thread = threading.Thread(target=lambda: work(engine, settings.ingest, home=settings.home, stop=stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def run_beside(engine: sa.Engine, settings: Settings) -> Iterator[None]:
    """What `codelupe up` runs beside the daemon."""
    with ingest_beside(settings, engine, Progress()):
        yield


@pytest.mark.parametrize("run", [run_worker, run_beside])
def test_who_opts_out_is_taken_out_at_the_start_and_when_the_file_changes(
    run: Callable[..., Iterator[None]],
    stored: None,
    engine: sa.Engine,
    settings: Settings,
    tmp_path: Path,
    fetch: Callable[..., list[tuple[object, ...]]],
) -> None:
    file = tmp_path / "out"
    file.write_text("alice/*\n")
    changed = Settings(
        settings.home, settings.database, settings.monitoring, SETTINGS.model_copy(update={"opt_out": (file,)})
    )
    out = "SELECT count(*) FROM processed_files WHERE excluded_reason = 'opted_out' AND content IS NULL"
    with run(engine, changed):
        wait_for(lambda: fetch(out) == [(2,)])
        assert [reason for _, reason in fetch(STATES)] == ["opted_out", None]
        file.write_text("alice/*\nhttps://github.com/bob/tool\n")
        wait_for(lambda: fetch(out) == [(4,)])
    assert [reason for _, reason in fetch(STATES)] == ["opted_out", "opted_out"]


def test_nothing_is_taken_while_a_file_cannot_be_read_and_that_is_said_once(
    engine: sa.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "out"
    file.write_text("alice/tool\n")
    files = OptOutFiles(engine, [file])
    assert files.look()
    caplog.set_level(logging.ERROR)
    file.write_text("alice/tool\nbob\n")
    assert [files.look() for _ in "xxx"] == [False] * 3
    file.unlink()
    assert [files.look() for _ in "xxx"] == [False] * 3
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert f"nothing is taken until this is mended: {file}:2: 'bob' is no opt-out" in said[0]
    file.write_text("bob/*\n")
    assert files.look()
