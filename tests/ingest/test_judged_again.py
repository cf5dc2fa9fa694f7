"""Other rules, another licence: what has not changed is judged again, a few sources an hour, and no row is lost."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingest.config import IngestSettings
from ingest.rescans import rescan
from ingest.worker import work
from schema.audit import audit
from schema.lines import open_line
from schema.repositories import add_source
from schema.runs import Limits
from tests.builders import hold_line, open_run
from tests.ingest.helpers import SETTINGS, make_code

Fetch = Callable[..., list[tuple[object, ...]]]
Make = Callable[..., Path]
GPL = "This is free software under the terms of the GNU General Public License, version 3.\n"
MIT = "Released under the MIT License."
_FILES = "SELECT file_path, excluded_reason FROM processed_files ORDER BY file_path, id"
_QUEUE = (
    "SELECT f.file_path, q.excluded_reason, q.run_id IS NOT NULL FROM training_queue q"
    " JOIN processed_files f ON f.id = q.item_id ORDER BY f.file_path, f.id"
)
_STATES = "SELECT state, reason, licence FROM repositories ORDER BY id"


@pytest.fixture(autouse=True)
def line(engine: sa.Engine) -> int:
    """A line, whose queue shows what may be trained on."""
    with engine.begin() as conn:
        return open_line(conn, name="qwen", base_model="base").id


@pytest.fixture
def look(engine: sa.Engine, tmp_path: Path) -> Callable[[IngestSettings], int]:
    """Call it with settings for the next look at what is due, and the visits that come of it; return their number."""

    def run(settings: IngestSettings = SETTINGS) -> int:
        with engine.begin() as conn:
            conn.execute(sa.text("UPDATE chores SET due_at = now()"))
        num_due = rescan(engine, settings)
        work(engine, settings, home=tmp_path / "home", stop=threading.Event(), once=True)
        return num_due

    return run


def claim_everything(engine: sa.Engine, line: int) -> None:
    with engine.begin() as conn:
        assert open_run(conn, line, hold_line(conn), limits=Limits(0, 0, None, 100)) is not None


OTHER_RULES = [
    {"keep_tests": True},
    {"languages": ("python", "rust")},
    {"max_file_bytes": 200_000},
    {"max_error_share": 0.04},
]


def test_a_source_is_read_again_by_the_rules_of_today_and_its_rows_follow(
    make_repository: Make, ingest: Callable[..., None], look: Callable[..., int], engine: sa.Engine, fetch: Fetch
) -> None:
    """Its newest commit is the same throughout."""
    keeping = SETTINGS.model_copy(update={"keep_tests": True})
    ingest(make_repository("tool", {"a.py": make_code("a"), "test_b.py": make_code("b")}), settings=keeping)
    assert look(keeping) == 0
    assert look() == 1
    assert fetch(_FILES) == [("a.py", None), ("test_b.py", "test")]
    assert fetch(_QUEUE) == [("a.py", None, False), ("test_b.py", "test", False)]
    assert fetch("SELECT file_count, head_commit IS NOT NULL FROM repositories") == [(1, True)]
    assert look() == 0
    assert look(keeping) == 1
    assert fetch(_FILES) == [("a.py", None), ("test_b.py", None)]
    assert fetch(_QUEUE) == [("a.py", None, False), ("test_b.py", None, False)]
    assert fetch("SELECT count(*) FROM refused_files") == [(0,)]


def test_every_rule_is_told_from_the_others_and_a_setting_that_judges_nothing_is_none(
    make_folder: Make, ingest: Callable[..., None], engine: sa.Engine
) -> None:
    ingest(make_folder("tool", {"a.py": make_code("a")}))
    assert rescan(engine, SETTINGS.model_copy(update={"batch_rows": 7, "clone_timeout_s": 9})) == 0
    for rules in OTHER_RULES:
        with engine.begin() as conn:
            conn.execute(sa.text("UPDATE repositories SET state = 'done'"))
            conn.execute(sa.text("UPDATE chores SET due_at = now()"))
        assert rescan(engine, SETTINGS.model_copy(update=rules)) == 1, rules


def test_a_change_of_the_rules_does_not_queue_everything_at_once(
    make_folder: Make, ingest: Callable[..., None], engine: sa.Engine, fetch: Fetch
) -> None:
    ingest(*(make_folder(name, {"a.py": make_code(name)}) for name in "abc"))
    changed = SETTINGS.model_copy(update={"keep_tests": True, "judged_again_per_hour": 2})
    assert [rescan(engine, changed) for _ in range(3)] == [1, 0, 0]
    [(wait,)] = fetch("SELECT extract(epoch FROM due_at - now()) / 60 FROM chores WHERE name = 'judge_again'")
    assert 29 < float(str(wait)) <= 30
    assert rescan(engine, changed.model_copy(update={"judged_again_per_hour": 0})) == 0
    assert fetch("SELECT name FROM repositories WHERE state = 'queued'") == [("a",)]


@pytest.mark.parametrize("api", ["GPL-3.0", None])
def test_a_found_repository_that_lost_its_licence_leaves_the_queue_and_what_was_trained_on_is_marked(
    api: str | None,
    make_repository: Make,
    look: Callable[..., int],
    engine: sa.Engine,
    fetch: Fetch,
    line: int,
) -> None:
    """Told by GitHub, which saves the clone, or by its own files: a.py has not changed."""
    root = make_repository("found", {"LICENSE": MIT, "a.py": make_code("a")})
    with engine.begin() as conn:
        add_source(conn, source=str(root), kind="git", origin="crawler", name="found")
        conn.execute(sa.text("UPDATE repositories SET api_licence = 'MIT'"))
    look()
    claim_everything(engine, line)
    make_repository("found", {"b.py": make_code("b")})
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE repositories SET state = 'queued'"))
    look()
    assert fetch(_QUEUE) == [("a.py", None, True), ("b.py", None, False)]
    if api is None:
        make_repository("found", {"LICENSE": GPL})
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE repositories SET api_licence = :api"), {"api": api})
    assert look() == 1
    assert fetch(_FILES) == [("a.py", "licence"), ("b.py", "licence")]
    assert fetch(_QUEUE) == [("a.py", "licence", True), ("b.py", "licence", False)]
    with engine.begin() as conn:
        report = audit(conn)
    assert (report.rows_unaccounted, report.by_state["claimed"], report.by_state["excluded"]) == (0, 1, 1)
    assert fetch("SELECT state, reason FROM repositories") == [("refused", "licence")]
    assert look() == 0
    if api is None:
        make_repository("found", {"LICENSE": MIT})
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE repositories SET api_licence = 'MIT', state = 'queued'"))
    look()
    assert fetch(_FILES) == [("a.py", None), ("b.py", None)]


def test_rows_follow_a_licence_that_changes_to_another_allowed_one(
    make_folder: Make, ingest: Callable[..., None], fetch: Fetch
) -> None:
    root = make_folder("tool", {"LICENSE": MIT, "a.py": make_code("a")})
    ingest(root)
    (root / "LICENSE").write_text("SPDX-License-Identifier: ISC\n")
    ingest(root)
    assert fetch("SELECT licence, score_detail->>'licence' FROM processed_files") == [("ISC", "LICENSE: ISC")]


def test_a_folder_whose_licence_is_no_longer_allowed_leaves_but_for_files_with_their_own(
    make_folder: Make, look: Callable[..., int], engine: sa.Engine, fetch: Fetch
) -> None:
    own = "# SPDX-License-Identifier: ISC\n" + make_code("own")
    root = make_folder("found", {"LICENSE": MIT, "a.py": make_code("a"), "lib/b.py": make_code("b"), "lib/own.py": own})
    with engine.begin() as conn:
        add_source(conn, source=str(root), kind="folder", origin="crawler", name="found")
    look()
    (root / "lib" / "COPYING").write_text(GPL)
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE repositories SET state = 'queued'"))
    look()
    assert fetch(_FILES) == [("a.py", None), ("lib/b.py", "licence"), ("lib/own.py", None)]
    assert fetch(_STATES) == [("done", None, "MIT")]
