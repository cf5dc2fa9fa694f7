import hashlib
import itertools

import pytest
import sqlalchemy as sa

from schema.audit import audit
from schema.backlog import AGE_POINT_S
from schema.evaluations import fetch_evaluations, save_evaluations
from schema.files import exclude_files
from schema.leases import StaleFence
from schema.lines import open_line
from schema.runs import (
    Limits,
    RunOpen,
    StaleRun,
    advance_run,
    claim_run,
    count_members,
    count_pending,
    count_split,
    fetch_held_out,
    fetch_open_run,
    fetch_run,
    fetch_runs,
    release_run,
    stream_members,
)
from tests.builders import (
    ANY,
    add_files,
    add_repository,
    claim_source,
    hold_line,
    make_file,
    open_run,
    quarantine,
    save,
)


@pytest.fixture
def line(conn):
    return open_line(conn, name="qwen", base_model="base")


@pytest.fixture
def lease(conn):
    return hold_line(conn)


@pytest.fixture
def repository_id(conn, line):
    return add_repository(conn)


def limits(**values):
    return Limits(**({name: getattr(ANY, name) for name in ANY.__slots__} | values))


def lose(conn, lease):
    conn.execute(sa.text("UPDATE leases SET until = now() - interval '1 s'"))
    return hold_line(conn, holder="another")


def fetch_ids(conn, run, *roles):
    return [member.item_id for member in stream_members(conn, run.id) if not roles or member.role in roles]


def promote(conn, run, lease):
    return advance_run(conn, run, lease=lease, to="promoted")


def reject(conn, run, lease, *, to="rejected", waiting=True):
    return release_run(conn, run, lease=lease, to=to, reason="worse", waiting=waiting)


# ---- count and claim


@pytest.mark.parametrize(
    ("limit", "num"),
    [({}, 6), ({"min_score": 70}, 4), ({"min_score": 70.1}, 2), ({"min_chars": 12}, 3), ({"min_score": 101}, 0)],
)
def test_what_is_counted_can_be_claimed(limit, num, conn, line, lease):
    claim = claim_source(conn)
    for score, content in itertools.product([90, 70, 50], ["{:<11}", "{:<12}"]):
        save(conn, claim, make_file(content=content.format(score), quality_score=float(score)))
    assert count_pending(conn, line.id, limits(**limit), at_most=100) == num
    run = open_run(conn, line.id, lease, limits=limits(**limit), min_rows=num)
    assert (count_members(conn, run.id) if run else {}) == ({"train": num} if num else {})


def test_the_count_stops_where_it_is_told(conn, line, repository_id):
    add_files(conn, repository_id, 5)
    assert count_pending(conn, line.id, ANY, at_most=3) == 3


def test_too_few_rows_open_no_run_and_change_nothing(conn, line, lease, repository_id):
    add_files(conn, repository_id, 3)
    assert open_run(conn, line.id, lease, min_rows=4) is None
    assert fetch_runs(conn, line.id, limit=9) == []
    assert count_pending(conn, line.id, ANY, at_most=9) == 3
    assert open_run(conn, line.id, lease, min_rows=3).number == 1


def test_the_best_rows_are_claimed_first_and_the_rest_stays_pending(conn, line, lease, repository_id):
    by_score = {score: add_files(conn, repository_id, 2, score=score) for score in (60.0, 90.0, 75.0)}
    run = open_run(conn, line.id, lease, limits=limits(max_rows=3), min_rows=1)
    assert fetch_ids(conn, run) == [*by_score[90.0], by_score[75.0][0]]
    assert count_pending(conn, line.id, ANY, at_most=9) == 3


def test_an_old_row_outranks_a_better_new_one_by_a_point_a_day(conn, line, lease, repository_id):
    (old,) = add_files(conn, repository_id, 1, score=60)
    aged = sa.text("UPDATE processed_files SET created_at = created_at - make_interval(secs => :s)")
    conn.execute(aged, {"s": 11 * AGE_POINT_S})
    conn.execute(sa.text("DELETE FROM training_queue"))
    conn.execute(sa.text("DELETE FROM lines"))
    line = open_line(conn, name="again", base_model="base")
    (new,) = add_files(conn, repository_id, 1, score=70)
    assert fetch_ids(conn, open_run(conn, line.id, lease)) == [old, new]


@pytest.mark.parametrize(("max_chars", "num"), [(35, 3), (30, 3), (29, 2), (5, 1)])
def test_a_limit_of_characters_cuts_the_claim_but_never_to_nothing(max_chars, num, conn, line, lease):
    save(conn, claim_source(conn), *(make_file(content=f"{number:<10}") for number in range(6)))
    run = open_run(conn, line.id, lease, limits=limits(max_chars_total=max_chars), min_rows=6)
    assert count_members(conn, run.id) == {"train": num}
    assert count_pending(conn, line.id, ANY, at_most=9) == 6 - num


def test_held_out_excluded_and_quarantined_rows_are_not_claimed(conn, line, lease, repository_id):
    add_files(conn, repository_id, 1, split="test")
    good, excluded, suspect = add_files(conn, repository_id, 3)
    exclude_files(conn, [excluded], "vanished")
    quarantine(conn, line.id, [suspect], "nan")
    assert fetch_ids(conn, open_run(conn, line.id, lease)) == [good]
    states = audit(conn).by_state
    assert (states["held_out"], states["excluded"], states["quarantined"], states["claimed"]) == (1, 1, 1, 1)


def test_a_run_remembers_what_it_was_opened_with(conn, line, lease, repository_id):
    add_files(conn, repository_id, 1)
    run = claim_run(
        conn, run_uuid="u", line_id=line.id, lease=lease, kind="adapter", limits=ANY, min_rows=1, config={"r": 64},
        parent_version=3,
    )  # fmt: skip
    assert (run.state, run.config, run.parent_version, run.fence) == ("claimed", {"r": 64}, 3, lease.fence)
    assert fetch_open_run(conn, line.id) == fetch_run(conn, uuid="u") == run
    assert fetch_run(conn, line_id=line.id, number=1) == run
    assert fetch_run(conn, uuid="v") is None


def test_the_digest_covers_every_member_in_order(conn, line, lease, repository_id):
    add_files(conn, repository_id, 3)
    run = open_run(conn, line.id, lease)
    lines = [
        f"{m.ordinal} {m.item_kind} {m.item_id} {m.role} {m.content_sha256}\n" for m in stream_members(conn, run.id)
    ]
    assert run.members_digest == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_members_come_with_their_contents_in_order(conn, line, lease):
    files = [make_file("a.py", score_detail={}), make_file("b.py")]
    claim = claim_source(conn, "/sources/somewhere")
    save(conn, claim, *files)
    members = list(stream_members(conn, open_run(conn, line.id, lease).id))
    assert [(m.ordinal, m.file_path, m.content) for m in members] == [
        (n, f.file_path, f.content) for n, f in enumerate(files)
    ]
    assert (members[0].repository, members[0].split, members[0].licence) == ("/sources/somewhere", "train", "MIT")


def test_a_line_has_one_open_run(conn, line, lease, repository_id):
    add_files(conn, repository_id, 2)
    open_run(conn, line.id, lease, limits=limits(max_rows=1))
    with pytest.raises(RunOpen, match="run 1 open"):
        open_run(conn, line.id, lease)


def test_another_line_consumes_the_same_rows_on_its_own(conn, line, lease, repository_id):
    ids = add_files(conn, repository_id, 2)
    other = open_line(conn, name="other", base_model="base")
    for name in (line, other):
        assert fetch_ids(conn, open_run(conn, name.id, lease)) == ids
    assert audit(conn).by_state["claimed"] == 4


# ---- the base's run


def test_a_base_run_takes_whole_units_up_to_its_share(conn, line, lease, repository_id):
    for number in range(9):
        add_files(conn, repository_id, 3, unit=f"unit_{number}")
    run = open_run(conn, line.id, lease, kind="base", by_hash_share=0.5)
    seen = {member.unit for member in stream_members(conn, run.id)}
    assert (run.number, len(seen), count_members(conn, run.id)) == (0, 4, {"base": 12})
    promote(conn, run, lease)
    rest = open_run(conn, line.id, lease)
    assert rest.number == 1
    assert seen.isdisjoint(member.unit for member in stream_members(conn, rest.id))


def test_a_base_run_chooses_the_same_units_again(conn, line, lease, repository_id):
    for number in range(6):
        add_files(conn, repository_id, 2, unit=f"unit_{number}")
    chosen = []
    for _ in range(2):
        run = open_run(
            conn, line.id, lease, kind="base", by_hash_share=0.5, limits=limits(max_chars_total=130), min_rows=0
        )
        chosen.append(fetch_ids(conn, run))
        reject(conn, run, lease, to="failed", waiting=False)
    assert chosen[0] == chosen[1]
    assert 0 < len(chosen[0]) < 6


# ---- replay


def test_an_adapter_run_replays_rows_that_were_consumed_before(conn, line, lease, repository_id):
    earlier = add_files(conn, repository_id, 10)
    promote(conn, open_run(conn, line.id, lease), lease)
    new = add_files(conn, repository_id, 6)
    run = open_run(conn, line.id, lease, replay_share=0.5)
    assert fetch_ids(conn, run, "train") == new
    replayed = fetch_ids(conn, run, "replay")
    assert len(set(replayed)) == 3
    assert set(replayed) < set(earlier)
    assert [member.ordinal for member in stream_members(conn, run.id)] == list(range(9))
    assert audit(conn).rows_unaccounted == 0


def test_replay_depends_on_the_run_number_alone(conn, line, lease, repository_id):
    add_files(conn, repository_id, 30)
    promote(conn, open_run(conn, line.id, lease), lease)
    add_files(conn, repository_id, 10)
    samples = []
    for _ in range(2):
        attempt = conn.begin_nested()
        samples.append(fetch_ids(conn, open_run(conn, line.id, lease, replay_share=1.0), "replay"))
        attempt.rollback()
    run = open_run(conn, line.id, lease)
    reject(conn, run, lease, waiting=False)
    samples.append(fetch_ids(conn, open_run(conn, line.id, lease, replay_share=1.0), "replay"))
    assert samples[0] == samples[1]
    assert set(samples[0]) != set(samples[2])


@pytest.mark.parametrize("loss", ["released", "content", "excluded", "quarantined"])
def test_what_must_not_be_seen_again_is_not_replayed(loss, conn, line, lease, repository_id):
    gone, kept = add_files(conn, repository_id, 2)
    run = open_run(conn, line.id, lease, limits=limits(max_rows=1))
    if loss == "released":
        reject(conn, run, lease)
    else:
        promote(conn, run, lease)
    promote(conn, open_run(conn, line.id, lease, limits=limits(max_rows=1)), lease)
    if loss == "content":
        conn.execute(sa.text("UPDATE processed_files SET content = NULL WHERE id = :id"), {"id": gone})
    elif loss == "excluded":
        exclude_files(conn, [gone], "vanished")
    elif loss == "quarantined":
        quarantine(conn, line.id, [gone], "nan")
    add_files(conn, repository_id, 4)
    run = open_run(conn, line.id, lease, limits=limits(max_rows=4), replay_share=1.0)
    assert fetch_ids(conn, run, "replay") == [kept]


# ---- consolidation


@pytest.mark.parametrize(("most", "num"), [({}, 8), ({"max_rows": 5}, 5), ({"max_chars_total": 3 * 36}, 3)])
def test_a_consolidation_takes_what_adapters_were_trained_on_within_the_limits_of_a_run(
    most, num, conn, line, lease, repository_id
):
    add_files(conn, repository_id, 2)
    promote(conn, open_run(conn, line.id, lease, kind="base"), lease)
    earlier = [add_files(conn, repository_id, 1, content=f"{number}" * 36)[0] for number in range(8)]
    promote(conn, open_run(conn, line.id, lease), lease)
    new = [add_files(conn, repository_id, 1, content=letter * 36)[0] for letter in "ab"]
    run = open_run(conn, line.id, lease, kind="consolidation", limits=limits(**most), replay_share=0.5)
    retained = fetch_ids(conn, run, "consolidation")
    assert fetch_ids(conn, run, "train") == new
    assert len(set(retained)) == num
    assert set(retained) <= set(earlier)
    assert fetch_ids(conn, run, "replay") == []
    assert audit(conn).rows_unaccounted == 0


# ---- states


def test_a_run_moves_on_and_gathers_its_figures(conn, line, lease, repository_id):
    add_files(conn, repository_id, 1)
    run = open_run(conn, line.id, lease)
    run = advance_run(conn, run, lease=lease, to="training", attempt=1, figures={"rows": 1})
    run = advance_run(conn, run, lease=lease, to="evaluating", artifact_digest="d", figures={"tokens": 9})
    assert (run.attempt, run.artifact_digest, run.finished_at) == (1, "d", None)
    run = advance_run(conn, run, lease=lease, to="promoted", version=1, reason="better")
    assert (run.figures, run.version, run.reason) == ({"rows": 1, "tokens": 9}, 1, "better")
    assert run.finished_at is not None
    assert fetch_open_run(conn, line.id) is None
    assert audit(conn).by_state["trained"] == 1


def test_a_run_is_not_moved_from_a_state_that_it_has_left(conn, line, lease, repository_id):
    add_files(conn, repository_id, 1)
    seen = open_run(conn, line.id, lease)
    advance_run(conn, seen, lease=lease, to="training")
    with pytest.raises(StaleRun, match=r"run 1 .* is not claimed any more"):
        advance_run(conn, seen, lease=lease, to="training")


@pytest.mark.parametrize("write", ["claim", "advance", "release"])
def test_a_holder_that_lost_its_lease_changes_no_run(write, conn, line, lease, repository_id):
    add_files(conn, repository_id, 2)
    run = open_run(conn, line.id, lease, limits=limits(max_rows=1))
    if write == "claim":
        promote(conn, run, lease)
    new_lease = lose(conn, lease)
    calls = {
        "claim": lambda held: open_run(conn, line.id, held),
        "advance": lambda held: promote(conn, run, held),
        "release": lambda held: reject(conn, run, held),
    }
    with pytest.raises(StaleFence):
        calls[write](lease)
    assert calls[write](new_lease).fence == new_lease.fence


@pytest.mark.parametrize("to", ["held", "rejected", "failed"])
def test_it_releases_the_rows_of_a_run_that_was_not_promoted(to, conn, line, lease, repository_id):
    ids = add_files(conn, repository_id, 3)
    run = open_run(conn, line.id, lease)
    ended = reject(conn, run, lease, to=to, waiting=False)
    assert (ended.state, ended.reason, ended.finished_at is None) == (to, "worse", False)
    assert fetch_ids(conn, run) == ids
    assert audit(conn).by_state["pending"] == 3
    assert conn.execute(sa.text("SELECT DISTINCT tries FROM training_queue")).scalars().all() == [1]
    again = open_run(conn, line.id, lease)
    assert (again.number, fetch_ids(conn, again)) == (2, ids)


def test_waiting_rows_are_claimed_after_enough_fresh_ones(conn, line, lease, repository_id):
    old = add_files(conn, repository_id, 2, score=99)
    reject(conn, open_run(conn, line.id, lease), lease, waiting=True)
    assert count_pending(conn, line.id, ANY, at_most=9) == 0
    assert count_pending(conn, line.id, ANY, at_most=9, include_waiting=True) == 2
    assert open_run(conn, line.id, lease) is None
    new = add_files(conn, repository_id, 2, score=60)
    assert open_run(conn, line.id, lease, min_rows=3) is None
    assert fetch_ids(conn, open_run(conn, line.id, lease, min_rows=2)) == new + old


def test_waiting_rows_alone_can_be_claimed_on_request(conn, line, lease, repository_id):
    old = add_files(conn, repository_id, 2)
    reject(conn, open_run(conn, line.id, lease), lease, waiting=True)
    assert fetch_ids(conn, open_run(conn, line.id, lease, min_rows=0)) == old


@pytest.mark.parametrize(("call", "to"), [(advance_run, "held"), (release_run, "promoted"), (release_run, "training")])
def test_an_end_that_would_lose_rows_is_refused(call, to, conn, line, lease, repository_id):
    add_files(conn, repository_id, 1)
    run = open_run(conn, line.id, lease)
    extra = {"reason": "x", "waiting": False} if call is release_run else {}
    with pytest.raises(ValueError, match="release"):
        call(conn, run, lease=lease, to=to, **extra)


def test_an_item_is_new_data_of_one_run_by_the_database_itself(conn, line, lease, repository_id):
    add_files(conn, repository_id, 1)
    promote(conn, open_run(conn, line.id, lease), lease)
    twice = (
        "INSERT INTO training_run_items SELECT run_id, 1, line_id, item_kind, item_id, role, '' FROM training_run_items"
    )
    with pytest.raises(sa.exc.IntegrityError, match="uq_training_run_items_consumed"):
        conn.execute(sa.text(twice))


# ---- what evaluations read and write


def test_held_out_items_come_in_a_stable_order(conn, line, repository_id):
    ids = add_files(conn, repository_id, 3, split="test", score=90)
    add_files(conn, repository_id, 2, split="test", score=10)
    add_files(conn, repository_id, 2, split="validation")
    gone, *kept = ids
    exclude_files(conn, [gone], "vanished")
    members = list(fetch_held_out(conn, line.id, "test", limits=limits(min_score=50, max_rows=1)))
    assert [(member.ordinal, member.item_id, member.role) for member in members] == [
        (0, kept[0], "test"),
        (1, kept[1], "test"),
    ]


def test_the_splits_are_counted(conn, line, repository_id):
    add_files(conn, repository_id, 2, unit="one", content=None)
    add_files(conn, repository_id, 1, unit="two")
    (held_out,) = add_files(conn, repository_id, 1, unit="three", split="test")
    counts = count_split(conn, line.id)
    assert (counts["train"]["rows"], counts["train"]["units"]) == (3, 2)
    chars = conn.execute(sa.text("SELECT num_chars FROM processed_files WHERE id = :id"), {"id": held_out}).scalar_one()
    assert counts["test"] == {"rows": 1, "units": 1, "chars": chars}


def test_evaluations_are_replaced_not_doubled(conn, line, lease, repository_id):
    add_files(conn, repository_id, 1)
    run = open_run(conn, line.id, lease)
    figure = {"model": "base", "eval_set": "test", "metric": "bits_per_byte", "num_bytes": 100}
    save_evaluations(conn, run.id, [figure | {"value": 2.5}, figure | {"value": 2.4, "unit": "json"}])
    save_evaluations(conn, run.id, [figure | {"value": 2.25}])
    save_evaluations(conn, run.id, [])
    assert [(row["unit"], row["value"]) for row in fetch_evaluations(conn, run.id)] == [("", 2.25), ("json", 2.4)]
