"""Who locks several repositories locks them in the order of their ids: two at once wait for each other and go on."""

import datetime as dt
import time
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from schema.found import FoundRow, save_found
from schema.opt_outs import remove_repositories

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
DEADLINE_S = 60


def make_found(name):
    return FoundRow(
        *(name, f"https://x/{name}", "x", "alice", name, 100, 10, "python", [], "MIT", 10, NOW, 80.0, {}, 0),
        *("queued", None),
    )


def wait_for(engine, num_waiting):
    """Wait until so many connections of this database wait for a row."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with engine.connect() as conn:
            if conn.execute(sa.text(waiting)).scalar_one() >= num_waiting:
                return
        time.sleep(0.01)
    raise AssertionError(f"{num_waiting} connections should wait for a lock")


def test_an_opt_out_and_a_crawl_of_the_same_repositories_do_not_deadlock(engine):
    with engine.begin() as conn:
        save_found(conn, [make_found("one"), make_found("two")])
    with engine.begin() as conn:
        # Its new version lies behind the other one: whoever reads the table as it lies, which is the way to read a
        # small one, comes to it last.
        conn.execute(sa.text("UPDATE repositories SET stars = 200 WHERE name = 'one'"))
        conn.execute(sa.text("ANALYZE repositories"))
        ids = dict(conn.execute(sa.text("SELECT name, id FROM repositories")).all())
    assert ids["one"] < ids["two"]

    def crawl():
        with engine.begin() as conn:
            return dict(save_found(conn, [make_found("two"), make_found("one")]))

    def opt_out():
        with engine.begin() as conn:
            return remove_repositories(conn, [ids["two"], ids["one"]]).num_repositories

    with ThreadPoolExecutor(2) as people, engine.begin() as first:
        first.execute(sa.text("SELECT FROM repositories WHERE name = 'one' FOR UPDATE"))
        crawled = people.submit(crawl)
        wait_for(engine, 1)
        opted_out = people.submit(opt_out)
        wait_for(engine, 2)
        first.rollback()
        assert crawled.result(DEADLINE_S) == {"known": 2}
        assert opted_out.result(DEADLINE_S) == 2
