"""Old contents are dropped by the worker once a day, and by `codelupe ingest prune`."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from click.testing import Result

from ingest.retention import Caretaker
from ingest.worker import work
from schema.files import exclude_files
from tests.builders import add_files, add_repository
from tests.ingest.helpers import SETTINGS

_AGE = sa.text(
    "UPDATE processed_files SET excluded_seen_at = now() - interval '40 days' WHERE excluded_reason IS NOT NULL"
)


def exclude_one(engine: sa.Engine) -> None:
    """Store two files, and exclude one of them for forty days now."""
    with engine.begin() as conn:
        gone, _ = add_files(conn, add_repository(conn), 2)
        exclude_files(conn, [gone], "vanished")
        conn.execute(_AGE)


def test_a_worker_drops_them_and_the_database_says_when_it_is_due_again(
    engine: sa.Engine, fetch: Callable[..., list[tuple[object, ...]]], tmp_path: Path
) -> None:
    kept = "SELECT count(*) FROM processed_files WHERE content IS NOT NULL"
    for num_kept in (1, 2):
        exclude_one(engine)
        work(engine, SETTINGS, home=tmp_path / "home", stop=threading.Event(), once=True)
        assert fetch(kept) == [(num_kept + (num_kept == 2),)]
    assert fetch("SELECT name, due_at > now() + interval '23 hours', figures->>'contents' FROM chores") == [
        ("prune", True, "1")
    ]


def test_a_stop_leaves_the_rest_to_whoever_comes_next(
    engine: sa.Engine, fetch: Callable[..., list[tuple[object, ...]]]
) -> None:
    exclude_one(engine)
    stop, signs = threading.Event(), []
    stop.set()
    Caretaker(engine, days=30).look(stop, lambda **given: signs.append(given))
    due = "SELECT due_at BETWEEN now() AND now() + interval '1 hour', figures->>'contents' FROM chores"
    assert (fetch(due), signs) == ([(True, None)], [{"database_up": True}])
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE chores SET due_at = now()"))
    Caretaker(engine, days=30).look(threading.Event(), lambda **given: None)
    assert fetch("SELECT figures->>'contents' FROM chores") == [("0",)]


def test_prune_says_what_it_would_drop_and_drops_it(run: Callable[..., Result], engine: sa.Engine) -> None:
    exclude_one(engine)
    assert json.loads(run("prune", "--dry-run", "--json").stdout) == {"days": 30, "contents": {"vanished": 1}}
    assert "would drop 1 vanished" in run("prune", "--dry-run").stdout
    report = json.loads(run("prune", "--json").stdout)
    assert (report["days"], report["dropped"]) == (30, 1)
    assert run("prune", "--dry-run").stdout == "nothing to drop\n"
