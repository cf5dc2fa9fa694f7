"""The search for a row that makes runs fail, at the level of the tables."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from schema.audit import audit
from schema.files import exclude_files, save_files
from schema.lines import open_line
from schema.runs import (
    advance_run,
    count_members,
    count_pending,
    fetch_last_failure,
    release_run,
    stream_members,
)
from schema.suspects import (
    count_data_failures,
    count_quarantined,
    count_suspects,
    narrow,
    pass_probe,
    release_quarantined,
    try_again,
)
from schema.tables import QueueItem
from tests.builders import ANY, add_files, add_repository, claim_source, hold_line, make_file, open_run, quarantine

BY_DATA, BY_DISK = {"failure": {"data_caused": True}}, {"failure": {"data_caused": False}}


@pytest.fixture
def line(conn):
    return open_line(conn, name="qwen", base_model="base")


@pytest.fixture
def lease(conn):
    return hold_line(conn)


@pytest.fixture
def repository_id(conn, line):
    return add_repository(conn)


def fail(conn, run, lease, figures=BY_DATA):
    return release_run(conn, run, lease=lease, to="failed", reason="nan", waiting=False, figures=figures)


def marked(conn, mark):
    found = sa.select(QueueItem.item_id).where(QueueItem.quarantined_reason == mark).order_by(QueueItem.item_id)
    return list(conn.execute(found).scalars())


def accounts(conn):
    report = audit(conn)
    assert report.rows_unaccounted == 0
    return {state: num for state, num in report.by_state.items() if num}


def suspect(conn, line, lease, ids):
    """Fail a run of everything pending; its rows are under suspicion."""
    run = open_run(conn, line.id, lease)
    assert count_members(conn, run.id)["train"] == len(ids)
    fail(conn, run, lease)
    assert narrow(conn, run.id, line.id, "nan") is None
    return run


# ---- the count


@pytest.mark.parametrize(
    ("ends", "num"),
    [
        ([], 0),
        ([BY_DATA], 1),
        ([BY_DATA, BY_DATA, BY_DATA], 3),
        ([BY_DATA, BY_DISK, BY_DATA], 2),
        ([BY_DISK], 0),
        ([{}], 0),
        ([BY_DATA, "held", BY_DATA], 1),
        ([BY_DATA, "rejected"], 0),
        ([BY_DATA, BY_DATA, "promoted"], 0),
    ],
)
def test_failures_that_data_caused_are_counted_back_to_the_last_run_that_ended_otherwise(
    conn, line, lease, repository_id, ends, num
):
    for end in ends:
        add_files(conn, repository_id, 1)
        run = open_run(conn, line.id, lease)
        if end == "promoted":
            advance_run(conn, run, lease=lease, to=end)
        elif isinstance(end, str):
            release_run(conn, run, lease=lease, to=end, reason="x", waiting=False)
        else:
            fail(conn, run, lease, end)
    assert count_data_failures(conn, line.id) == num


def test_failures_of_a_base_run_are_not_counted(conn, line, lease, repository_id):
    add_files(conn, repository_id, 4)
    fail(conn, open_run(conn, line.id, lease, kind="base"), lease)
    assert count_data_failures(conn, line.id) == 0


def test_the_last_failure_is_that_of_the_last_run_unless_a_probe_went_through(conn, line, lease, repository_id):
    add_files(conn, repository_id, 1)
    assert fetch_last_failure(conn, line.id) is None
    failed = fail(conn, open_run(conn, line.id, lease), lease)
    assert fetch_last_failure(conn, line.id) == failed
    ended = {"lease": lease, "to": "held", "waiting": False}
    release_run(conn, open_run(conn, line.id, lease), reason="probe_passed", **ended)
    assert fetch_last_failure(conn, line.id) == failed
    release_run(conn, open_run(conn, line.id, lease), reason="equal", **ended)
    assert fetch_last_failure(conn, line.id) is None


# ---- halving


@pytest.mark.parametrize(("num", "num_probes"), [(2, 1), (3, 2), (8, 4), (9, 5)])
def test_the_rows_of_a_failed_run_are_halved_in_their_order(conn, line, lease, repository_id, num, num_probes):
    ids = add_files(conn, repository_id, num)
    suspect(conn, line, lease, ids)
    assert (marked(conn, "probe"), marked(conn, "suspect")) == (ids[:num_probes], ids[num_probes:])
    assert count_suspects(conn, line.id) == num
    assert accounts(conn) == {"quarantined": num}
    assert count_pending(conn, line.id, ANY, at_most=99) == 0


def test_a_probe_takes_exactly_its_rows_whatever_else_is_pending(conn, line, lease, repository_id):
    ids = add_files(conn, repository_id, 5, score=10.0)
    suspect(conn, line, lease, ids)
    add_files(conn, repository_id, 7, score=90.0)
    run = open_run(conn, line.id, lease, probe=True, limits=ANY, min_rows=99)
    assert [member.item_id for member in stream_members(conn, run.id)] == ids[:3]
    assert run.figures == {"probe": 5}
    assert accounts(conn) == {"claimed": 3, "quarantined": 2, "pending": 7}


def test_a_probe_that_fails_clears_those_held_back(conn, line, lease, repository_id):
    ids = add_files(conn, repository_id, 8)
    suspect(conn, line, lease, ids)
    run = open_run(conn, line.id, lease, probe=True)
    fail(conn, run, lease)
    assert narrow(conn, run.id, line.id, "nan") is None
    assert (marked(conn, "probe"), marked(conn, "suspect")) == (ids[:2], ids[2:4])
    assert accounts(conn) == {"quarantined": 4, "pending": 4}


def test_a_probe_that_passes_turns_the_suspicion_on_those_held_back(conn, line, lease, repository_id):
    ids = add_files(conn, repository_id, 8)
    suspect(conn, line, lease, ids)
    run = open_run(conn, line.id, lease, probe=True)
    assert pass_probe(conn, line.id) == 4
    assert (marked(conn, "probe"), marked(conn, "suspect")) == (ids[4:6], ids[6:])
    advance_run(conn, run, lease=lease, to="promoted")
    assert accounts(conn) == {"trained": 4, "quarantined": 4}


def test_a_row_that_failed_alone_is_quarantined_and_named(conn, line, lease, repository_id):
    (culprit,) = add_files(conn, repository_id, 1)
    run = open_run(conn, line.id, lease)
    fail(conn, run, lease)
    found = narrow(conn, run.id, line.id, "loss_spike")
    assert (found["item_id"], found["path"].endswith(".py")) == (culprit, True)
    assert marked(conn, "loss_spike") == [culprit]
    assert count_suspects(conn, line.id) == 0
    assert accounts(conn) == {"quarantined": 1}


def test_a_row_that_failed_beside_replayed_ones_is_tried_alone_first(conn, line, lease, repository_id):
    add_files(conn, repository_id, 1)
    advance_run(conn, open_run(conn, line.id, lease), lease=lease, to="promoted")
    (row,) = add_files(conn, repository_id, 1)
    run = open_run(conn, line.id, lease, replay_share=1.0)
    fail(conn, run, lease)
    assert narrow(conn, run.id, line.id, "nan") is None
    assert marked(conn, "probe") == [row]


def test_the_rows_of_a_probe_that_broke_off_are_tried_again(conn, line, lease, repository_id):
    ids = add_files(conn, repository_id, 4)
    suspect(conn, line, lease, ids)
    run = open_run(conn, line.id, lease, probe=True)
    fail(conn, run, lease, BY_DISK)
    try_again(conn, run.id)
    assert (marked(conn, "probe"), marked(conn, "suspect")) == (ids[:2], ids[2:])


def test_a_probe_of_which_nothing_is_left_opens_no_run(conn, line, lease, repository_id):
    ids = add_files(conn, repository_id, 4)
    suspect(conn, line, lease, ids)
    exclude_files(conn, ids[:3], "vanished")
    assert open_run(conn, line.id, lease, probe=True) is None
    assert pass_probe(conn, line.id) == 1
    assert marked(conn, "probe") == [ids[3]]
    exclude_files(conn, [ids[3]], "vanished")
    assert pass_probe(conn, line.id) == 0
    assert accounts(conn) == {"excluded": 4}


def test_the_search_of_one_line_is_nothing_to_another(conn, line, lease, repository_id):
    ids = add_files(conn, repository_id, 4)
    other = open_line(conn, name="other", base_model="base")
    suspect(conn, line, lease, ids)
    assert count_suspects(conn, other.id) == 0
    assert count_members(conn, open_run(conn, other.id, lease).id) == {"train": 4}
    assert pass_probe(conn, other.id) == 0
    assert count_suspects(conn, line.id) == 4


# ---- giving back


@pytest.mark.parametrize(("reason", "num", "left"), [(None, 3, {}), ("nan", 2, {"data": 1}), ("disk", 0, None)])
def test_quarantined_rows_are_given_back_by_reason(conn, line, lease, repository_id, reason, num, left):
    ids = add_files(conn, repository_id, 4)
    quarantine(conn, line.id, ids[:2], "nan")
    quarantine(conn, line.id, ids[2:3], "data")
    assert release_quarantined(conn, line.id, reason) == num
    assert count_quarantined(conn, line.id) == ({"nan": 2, "data": 1} if left is None else left)
    assert accounts(conn)["pending"] == 1 + num


# ---- beside ingest


def test_ingest_and_a_search_at_once_lose_nothing(engine):
    num_writers, num_batches, rows_per_batch = 3, 4, 5
    with engine.begin() as conn:
        line, lease = open_line(conn, name="qwen", base_model="base"), hold_line(conn)
        ids = add_files(conn, add_repository(conn), 40)
        claims = [claim_source(conn) for _ in range(num_writers)]
        suspect(conn, line, lease, ids)
    together = threading.Barrier(num_writers + 2, timeout=60)

    def write(claim):
        together.wait()
        for _ in range(num_batches):
            with engine.begin() as conn:
                save_files(conn, claim, [make_file() for _ in range(rows_per_batch)])

    def vanish():
        together.wait()
        for one in ids[::3]:
            with engine.begin() as conn:
                exclude_files(conn, [one], "vanished")

    def search():
        """Probe until the last row of `ids` has failed alone; return after how many probes."""
        together.wait()
        num_probes = 0
        while True:
            with engine.begin() as conn:
                if not count_suspects(conn, line.id):
                    return num_probes
                run = open_run(conn, line.id, lease, probe=True)
                if run is None:
                    pass_probe(conn, line.id)
                    continue
            num_probes += 1
            with engine.begin() as conn:
                members = {member.item_id for member in stream_members(conn, run.id)}
                if ids[38] in members:
                    fail(conn, run, lease)
                    narrow(conn, run.id, line.id, "nan")
                else:
                    pass_probe(conn, line.id)
                    release_run(conn, run, lease=lease, to="held", reason="probe_passed", waiting=False)
                assert audit(conn).rows_unaccounted == 0

    with ThreadPoolExecutor(num_writers + 2) as people:
        writers = [people.submit(write, claim) for claim in claims]
        others = people.submit(vanish), people.submit(search)
        for one in writers:
            one.result()
        _, num_probes = (one.result() for one in others)

    with engine.connect() as conn:
        assert marked(conn, "nan") == [ids[38]]
        num_new = num_writers * num_batches * rows_per_batch
        assert accounts(conn) == {"quarantined": 1, "excluded": 14, "pending": 25 + num_new}
    assert num_probes <= 8
