"""Retention: contents of excluded rows go after a while; the accounts, replays and evaluations do not notice."""

import datetime as dt
import uuid

import pytest
import sqlalchemy as sa

from schema.audit import audit
from schema.chores import finish_chore, take_chore
from schema.files import exclude_files
from schema.leases import HeldLease
from schema.lines import Line, open_line
from schema.retention import count_prunable, prune_contents
from schema.runs import advance_run, claim_run, fetch_held_out, stream_members
from tests.builders import ANY, add_files, add_repository, claim_source, finish, hold_line, make_file, open_run, save

DAYS = 30


@pytest.fixture
def lease(engine: sa.Engine) -> HeldLease:
    with engine.begin() as conn:
        return hold_line(conn)


@pytest.fixture
def line(engine: sa.Engine) -> Line:
    with engine.begin() as conn:
        return open_line(conn, name="qwen", base_model="base")


def prune(engine: sa.Engine) -> int:
    return sum(batch.num_contents for batch in prune_contents(engine, days=DAYS))


def age(engine: sa.Engine, days: int) -> None:
    with engine.begin() as conn:
        conn.execute(
            sa.text("UPDATE processed_files SET excluded_seen_at = excluded_seen_at - make_interval(days => :days)"),
            {"days": days},
        )


def fetch_kept(engine: sa.Engine) -> set[int]:
    with engine.begin() as conn:
        return set(conn.execute(sa.text("SELECT id FROM processed_files WHERE content IS NOT NULL")).scalars())


def test_contents_go_when_they_have_been_excluded_for_long_enough(engine: sa.Engine, line: Line) -> None:
    with engine.begin() as conn:
        repository_id = add_repository(conn)
        gone, kept = add_files(conn, repository_id, 2)
        exclude_files(conn, [gone], "vanished")
    assert prune(engine) == 0
    age(engine, DAYS - 1)
    assert prune(engine) == 0
    age(engine, 2)
    with engine.begin() as conn:
        assert {reason: num for reason, (num, _) in count_prunable(conn, days=DAYS).items()} == {"vanished": 1}
    assert fetch_kept(engine) == {gone, kept}
    assert prune(engine) == 1
    assert fetch_kept(engine) == {kept}
    assert prune(engine) == 0
    with engine.begin() as conn:
        report = audit(conn)
        assert (report.rows_unaccounted, report.by_state["excluded"], report.by_state["pending"]) == (0, 1, 1)


def test_the_time_begins_anew_for_a_file_that_came_back(engine: sa.Engine, line: Line) -> None:
    with engine.begin() as conn:
        claim = claim_source(conn, "/sources/back")
        first, second = make_file("a.py", "first = 1\n"), make_file("a.py", "second = 2\n")
        save(conn, claim, first)
        save(conn, claim, second)
        finish(conn, claim)
    prune(engine)
    age(engine, DAYS + 1)
    with engine.begin() as conn:
        save(conn, claim_source(conn, "/sources/back"), first)
    assert prune(engine) == 0
    with engine.begin() as conn:
        rows = conn.execute(sa.text("SELECT content, excluded_reason FROM processed_files ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [("first = 1\n", None), ("second = 2\n", "superseded")]


def test_a_file_that_comes_back_after_its_content_went_has_it_again(engine: sa.Engine, line: Line) -> None:
    with engine.begin() as conn:
        claim = claim_source(conn, "/sources/late")
        first = make_file("a.py", "first = 1\n")
        save(conn, claim, first)
        save(conn, claim, make_file("a.py", "second = 2\n"))
    prune(engine)
    age(engine, DAYS + 1)
    assert prune(engine) == 1
    with engine.begin() as conn:
        save(conn, claim, first)
        kept = conn.execute(sa.text("SELECT content FROM processed_files WHERE excluded_reason IS NULL")).scalars()
        assert list(kept) == ["first = 1\n"]
        assert audit(conn).rows_unaccounted == 0


def test_an_open_run_can_read_all_its_members_and_the_next_one_replays_what_is_left(
    engine: sa.Engine, line: Line, lease: HeldLease
) -> None:
    with engine.begin() as conn:
        repository_id = add_repository(conn)
        trained = add_files(conn, repository_id, 4)
        first = open_run(conn, line.id, lease)
        assert first is not None
        advance_run(conn, first, lease=lease, to="promoted")
        claimed = add_files(conn, repository_id, 2)
        second = open_run(conn, line.id, lease, replay_share=1.0)
        assert second is not None
        replayed = [member.item_id for member in stream_members(conn, second.id) if member.role == "replay"]
        exclude_files(conn, [claimed[0], *trained], "superseded")
    prune(engine)
    age(engine, DAYS + 1)
    assert prune(engine) == 2, "what is replayed is read again after a restart"
    with engine.begin() as conn:
        assert all(member.content is not None for member in stream_members(conn, second.id))
        advance_run(conn, second, lease=lease, to="promoted")
    assert prune(engine) == 3
    assert fetch_kept(engine) == {claimed[1]}
    with engine.begin() as conn:
        add_files(conn, repository_id, 2)
        third = claim_run(
            conn,
            run_uuid=str(uuid.uuid4()),
            line_id=line.id,
            lease=lease,
            kind="adapter",
            limits=ANY,
            min_rows=1,
            config={},
            parent_version=None,
            replay_share=1.0,
        )
        assert third is not None
        members = list(stream_members(conn, third.id))
        assert [member.item_id for member in members if member.role == "replay"] == [claimed[1]]
        assert all(member.content is not None for member in members)
        assert audit(conn).rows_unaccounted == 0
    assert len(replayed) == 2


def test_held_out_rows_in_use_keep_their_contents_and_dropped_ones_are_not_read(engine: sa.Engine, line: Line) -> None:
    with engine.begin() as conn:
        used, gone = add_files(conn, add_repository(conn), 2, split="test")
        exclude_files(conn, [gone], "vanished")
    prune(engine)
    age(engine, DAYS + 1)
    assert prune(engine) == 1
    with engine.begin() as conn:
        assert [member.item_id for member in fetch_held_out(conn, line.id, "test", limits=ANY)] == [used]


def test_a_chore_is_taken_by_one_and_again_when_it_is_due(conn: sa.Connection) -> None:
    day = dt.timedelta(days=1)
    found = [take_chore(conn, "prune", every=day) for _ in range(2)]
    finish_chore(conn, "prune", every=day, figures={"contents": 3})
    found.append(take_chore(conn, "prune", every=day))
    for shift in ("- interval '1 day'", "+ interval '2 years'"):
        conn.execute(sa.text(f"UPDATE chores SET due_at = due_at {shift}"))
        found.append(take_chore(conn, "prune", every=day))
    assert found == [True, False, False, True, True]
