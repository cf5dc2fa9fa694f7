"""The owner cap: no line consumes more than so many items of one owner that the crawler found (I1, I2 hold)."""

import random
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from schema.audit import audit
from schema.files import exclude_files, save_files
from schema.leases import acquire_lease
from schema.lines import Line, open_line
from schema.repositories import Claim, add_source, claim_repository
from schema.rescores import Rescored
from schema.rescores import save_scores as rescore_files
from schema.runs import Limits, claim_run, release_run
from tests.builders import fetch_file, hold_line, make_file, open_run

CAP = 5


def claim_found(conn: sa.Connection, name: str, owner: str = "mallory", origin: str = "crawler") -> Claim:
    add_source(
        conn, source=f"https://x/{owner}/{name}", kind="git", origin=origin, owner=owner, name=name, priority=1_000_000
    )
    claim = claim_repository(conn, lease_s=600)
    assert claim is not None
    assert claim.name == name
    return claim


def save_scores(conn: sa.Connection, claim: Claim, *scores: float, **values: object) -> None:
    """Store a file for each score, named by it."""
    files = [make_file(f"{score:g}.py", quality_score=score, owner=claim.owner, **values) for score in scores]
    save_files(conn, claim, files)


def fetch_scores(conn: sa.Connection, line: Line, reason: str | None = None) -> list[float]:
    rows = sa.text(
        """SELECT score FROM training_queue
        WHERE line_id = :line AND excluded_reason IS NOT DISTINCT FROM :reason ORDER BY score DESC"""
    )
    return list(conn.execute(rows, {"line": line.id, "reason": reason}).scalars())


@pytest.fixture
def line(conn: sa.Connection) -> Line:
    return open_line(conn, name="qwen", base_model="base", max_owner_rows=CAP)


def test_the_best_items_of_an_owner_are_kept_over_all_of_its_repositories(conn: sa.Connection, line: Line) -> None:
    save_scores(conn, claim_found(conn, "one"), 10, 20, 30, 40)
    save_scores(conn, claim_found(conn, "two"), 15, 25, 35)
    save_scores(conn, claim_found(conn, "other", owner="alice"), 1)
    assert fetch_scores(conn, line) == [40, 35, 30, 25, 20, 1]
    assert fetch_scores(conn, line, "owner_cap") == [15, 10]
    report = audit(conn)
    assert (report.rows_unaccounted, report.by_state["pending"], report.by_state["excluded"]) == (0, 6, 2)


def test_what_is_consumed_counts_and_is_never_given_up_for_something_better(conn: sa.Connection, line: Line) -> None:
    save_scores(conn, claim_found(conn, "one"), 10, 20, 30)
    lease = hold_line(conn)
    run = open_run(conn, line.id, lease)
    assert run is not None
    save_scores(conn, claim_found(conn, "two"), 70, 80, 90)
    assert fetch_scores(conn, line) == [90, 80, 30, 20, 10]
    release_run(conn, run, lease=lease, to="held", reason="not_better", waiting=True)
    save_scores(conn, claim_found(conn, "three"), 60)
    assert fetch_scores(conn, line) == [90, 80, 70, 60, 30]
    assert audit(conn).rows_unaccounted == 0


def test_when_something_leaves_the_best_one_behind_the_cap_takes_its_place(conn: sa.Connection, line: Line) -> None:
    save_scores(conn, claim_found(conn, "one"), 10, 20, 30, 40, 50, 60, 70)
    best = conn.execute(sa.text("SELECT id FROM processed_files WHERE file_path = '70.py'")).scalar_one()
    exclude_files(conn, [best], "vanished")
    assert fetch_scores(conn, line) == [60, 50, 40, 30, 20]
    assert fetch_file(conn, best)["excluded_reason"] == "vanished"
    assert audit(conn).rows_unaccounted == 0


def test_a_new_score_changes_who_is_behind_the_cap(conn: sa.Connection, line: Line) -> None:
    save_scores(conn, claim_found(conn, "one"), 10, 20, 30, 40, 50, 60)
    worst = conn.execute(sa.text("SELECT id FROM processed_files WHERE file_path = '10.py'")).scalar_one()
    assert rescore_files(conn, [Rescored(worst, 99.0, {})], version=2) == 1
    assert fetch_scores(conn, line) == [99, 60, 50, 40, 30]
    assert rescore_files(conn, [Rescored(worst, 1.0, {})], version=2) == 0, "another has done that"
    assert audit(conn).rows_unaccounted == 0


def test_each_line_has_its_own_cap_and_a_new_line_begins_under_it(conn: sa.Connection, line: Line) -> None:
    save_scores(conn, claim_found(conn, "one"), 10, 20, 30, 40, 50, 60, 70)
    small = open_line(conn, name="small", base_model="base", max_owner_rows=2)
    assert fetch_scores(conn, small) == [70, 60]
    wide = open_line(conn, name="qwen", base_model="base", max_owner_rows=6)
    assert (wide.id, fetch_scores(conn, wide)) == (line.id, [70, 60, 50, 40, 30, 20])
    assert audit(conn).rows_unaccounted == 0


def test_held_out_items_and_sources_that_the_operator_names_are_exempt(conn: sa.Connection, line: Line) -> None:
    save_scores(conn, claim_found(conn, "held"), 1, 2, 3, 4, 5, 6, split="test")
    assert len(fetch_scores(conn, line)) == 6
    save_scores(conn, claim_found(conn, "named", owner="alice", origin="operator"), 1, 2, 3, 4, 5, 6)
    assert len(fetch_scores(conn, line)) == 12
    save_scores(conn, claim_found(conn, "found", owner="alice"), 1, 2, 3, 4, 5, 6)
    assert len(fetch_scores(conn, line, "owner_cap")) == 1
    add_source(conn, source="https://x/alice/found", kind="git", owner="alice", name="found")
    assert fetch_scores(conn, line, "owner_cap") == []
    assert audit(conn).rows_unaccounted == 0


def test_four_writers_and_a_claimer_at_once_never_exceed_it(engine: sa.Engine) -> None:
    """Each writer saves several repositories of the same two owners while runs claim and give back."""
    with engine.begin() as conn:
        line = open_line(conn, name="qwen", base_model="base", max_owner_rows=CAP)
        hold_line(conn)
        claims = [claim_found(conn, f"r{number}", ("eve", "mallory")[number % 2]) for number in range(16)]
    done = threading.Event()

    def write(mine: list[Claim], seed: int) -> None:
        chance = random.Random(seed)
        for claim in mine:
            with engine.begin() as conn:
                save_scores(conn, claim, *(round(chance.uniform(0, 100), 6) for _ in range(4)))

    def claim_on() -> Counter[str]:
        ends: Counter[str] = Counter()
        while not done.is_set() or not ends.total():
            with engine.begin() as conn:
                ends[_claim_once(conn, line, is_kept=ends.total() % 2 == 1)] += 1
        return ends

    with ThreadPoolExecutor(5) as pool:
        claimer = pool.submit(claim_on)
        for writer in [pool.submit(write, claims[number::4], number) for number in range(4)]:
            writer.result()
        done.set()
        assert claimer.result().total() >= 1
    with engine.begin() as conn:
        live = sa.text(
            """SELECT owner, count(*) FROM training_queue
            WHERE run_id IS NOT NULL OR excluded_reason IS NULL GROUP BY owner ORDER BY owner"""
        )
        assert [tuple(row) for row in conn.execute(live)] == [("eve", CAP), ("mallory", CAP)]
        assert (audit(conn).rows_unaccounted, audit(conn).rows_total) == (0, 64)


def _claim_once(conn: sa.Connection, line: Line, *, is_kept: bool) -> str:
    lease = acquire_lease(conn, "line:qwen", "daemon", length_s=600)
    assert lease is not None
    run = claim_run(
        conn,
        run_uuid=str(uuid.uuid4()),
        line_id=line.id,
        lease=lease,
        kind="adapter",
        limits=Limits(0, 0, None, 2),
        min_rows=1,
        config={},
        parent_version=None,
    )
    if run is None:
        return "nothing"
    if is_kept:
        conn.execute(sa.text("UPDATE training_runs SET state = 'promoted' WHERE id = :id"), {"id": run.id})
        return "kept"
    release_run(conn, run, lease=lease, to="failed", reason="exception", waiting=False)
    return "released"
