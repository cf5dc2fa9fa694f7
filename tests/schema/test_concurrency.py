"""Many writers and claimers at once: nothing is lost, nothing is taken twice (I1, I2)."""

import random
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from schema.audit import audit
from schema.database import create_engine
from schema.files import save_files
from schema.lines import open_line
from schema.runs import Limits, RunOpen, advance_run, claim_run, count_pending, release_run, stream_members
from tests.builders import claim_source, hold_line, make_file

NUM_WRITERS = 8
NUM_BATCHES = 12
ROWS_PER_BATCH = 40
LIMITS = Limits(min_score=0, min_chars=0, max_chars_total=None, max_rows=150)


@pytest.fixture
def crowd(database_url):
    """An engine with a connection for everybody."""
    engine = create_engine(database_url, application_name="crowd", pool_size=NUM_WRITERS + 4)
    yield engine
    engine.dispose()


def write(engine, claim, seed):
    """Save batches, every third of them in vain at first; return how many rows were committed."""
    chance = random.Random(seed)
    for _ in range(NUM_BATCHES):
        files = [make_file(quality_score=chance.uniform(0, 100)) for _ in range(ROWS_PER_BATCH)]
        if chance.random() < 1 / 3:
            with engine.connect() as conn:
                save_files(conn, claim, files)
                conn.rollback()
        with engine.begin() as conn:
            save_files(conn, claim, files)
    return NUM_BATCHES * ROWS_PER_BATCH


def claim_and_end(engine, line, lease, chance):
    """Claim what there is and end the run in one way or another; False when there is nothing."""
    try:
        with engine.begin() as conn:
            run = claim_run(
                conn,
                run_uuid=str(uuid.uuid4()),
                line_id=line.id,
                lease=lease,
                kind="adapter",
                limits=LIMITS,
                min_rows=1,
                config={},
                parent_version=None,
                replay_share=0.1,
            )
    except RunOpen:
        return True
    if run is None:
        return False
    with engine.begin() as conn:
        if chance.random() < 0.25:
            release_run(conn, run, lease=lease, to="failed", reason="chance", waiting=False)
        else:
            advance_run(conn, run, lease=lease, to="promoted")
    return True


def claim_until(engine, line, lease, done, seed):
    chance = random.Random(seed)
    while claim_and_end(engine, line, lease, chance) or not done.is_set():
        pass


def test_eight_writers_and_three_claimers_lose_nothing_and_take_nothing_twice(crowd):
    with crowd.begin() as conn:
        line, lease = open_line(conn, name="qwen", base_model="base"), hold_line(conn)
        claims = [claim_source(conn) for _ in range(NUM_WRITERS)]
    done = threading.Event()
    with ThreadPoolExecutor(NUM_WRITERS + 3) as people:
        claimers = [people.submit(claim_until, crowd, line, lease, done, seed) for seed in range(3)]
        writers = [people.submit(write, crowd, claim, seed) for seed, claim in enumerate(claims)]
        try:
            num_rows = sum(writer.result() for writer in writers)
        finally:
            done.set()
        assert [claimer.result() for claimer in claimers] == [None] * 3
    with crowd.begin() as conn:
        report = audit(conn)
        consumed = "SELECT item_id FROM training_run_items WHERE role = 'train' AND released_at IS NULL"
        times = Counter(conn.execute(sa.text(consumed)).scalars())
        released = "SELECT count(*) FROM training_runs WHERE state = 'failed'"
        assert conn.execute(sa.text(released)).scalar_one() > 0
    assert num_rows == NUM_WRITERS * NUM_BATCHES * ROWS_PER_BATCH
    assert (report.rows_total, report.rows_unaccounted, report.by_state["trained"]) == (num_rows, 0, num_rows)
    assert set(times.values()) == {1}


def test_rows_that_another_transaction_holds_are_left_for_the_next_run(crowd):
    with crowd.begin() as conn:
        line, lease = open_line(conn, name="qwen", base_model="base"), hold_line(conn)
        save_files(conn, claim_source(conn), [make_file() for _ in range(10)])
    claim = {"line_id": line.id, "lease": lease, "kind": "adapter", "limits": LIMITS, "min_rows": 1, "config": {}}
    with crowd.begin() as holder:
        held = "SELECT item_id FROM training_queue ORDER BY item_id LIMIT 4 FOR UPDATE"
        held_ids = set(holder.execute(sa.text(held)).scalars())
        with crowd.begin() as conn:
            run = claim_run(conn, run_uuid="one", parent_version=None, **claim)
            assert held_ids.isdisjoint(member.item_id for member in stream_members(conn, run.id))
            advance_run(conn, run, lease=lease, to="promoted")
    with crowd.begin() as conn:
        assert count_pending(conn, line.id, LIMITS, at_most=10) == 4
        run = claim_run(conn, run_uuid="two", parent_version=None, **claim)
        assert {member.item_id for member in stream_members(conn, run.id)} == held_ids


def test_of_two_claims_at_once_one_opens_the_run_and_the_other_is_told(crowd):
    with crowd.begin() as conn:
        line, lease = open_line(conn, name="qwen", base_model="base"), hold_line(conn)
        save_files(conn, claim_source(conn), [make_file() for _ in range(300)])
    together = threading.Barrier(2, timeout=60)

    def try_to_claim(run_uuid):
        with crowd.begin() as conn:
            together.wait()
            claim_run(
                conn, run_uuid=run_uuid, line_id=line.id, lease=lease, kind="adapter", limits=LIMITS, min_rows=1,
                config={}, parent_version=None,
            )  # fmt: skip

    with ThreadPoolExecutor(2) as people:
        errors = [future.exception() for future in [people.submit(try_to_claim, name) for name in ("one", "two")]]
    assert sorted(map(str, map(type, errors))) == sorted(map(str, [type(None), RunOpen]))
