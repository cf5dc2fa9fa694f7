"""The search for a row that makes runs fail, as simulated rounds: exactly the culprits end in quarantine."""

import math
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from pydantic import SecretStr

from daemon.commands import train
from daemon.job import Failure
from daemon.tick import tick
from schema import failpoints
from schema.audit import audit
from schema.config import DatabaseSettings
from schema.decisions import fetch_decisions
from schema.files import exclude_files
from schema.lines import fetch_line, set_paused
from schema.runs import fetch_open_run, fetch_runs
from schema.suspects import count_suspects
from schema.tables import QueueItem
from tests.builders import add_files, add_repository
from tests.daemon.fake_child import FakeChild, let_back_off_pass, loop_of

NAN = Failure(reason="nan", message="the loss is not a number", data_caused=True)
FULL = Failure(reason="disk", message="no space left", data_caused=False)
BISECT_AFTER = 3


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes | {"bisect_after": BISECT_AFTER, "bootstrap_rounds": 200})


@pytest.fixture
def child(monkeypatch):
    child = FakeChild()
    monkeypatch.setattr("daemon.rounds.run_child", child)
    return child


@pytest.fixture
def begin(make_context, settings, engine):
    """Store `num` rows that one run takes, and what the gate needs; return the context and the rows in their order."""

    def store(num, *, threshold=None):
        ctx = make_context(settings.model_copy(update={"threshold_rows": threshold or num}))
        with engine.begin() as conn:
            repository = add_repository(conn)
            ids = add_files(conn, repository, num)
            for number in range(4):
                add_files(conn, repository, 1, split="test", unit=f"held_{number}")
        return ctx, ids

    return store


def line_of(engine):
    with engine.connect() as conn:
        return fetch_line(conn, "micro")


def look(engine):
    """Return the audit and, by reason, the quarantined rows."""
    quarantined = sa.select(QueueItem.quarantined_reason, QueueItem.item_id).where(QueueItem.quarantined_reason != "")
    with engine.connect() as conn:
        rows = conn.execute(quarantined.order_by(QueueItem.item_id)).all()
        return audit(conn), {reason: [item for found, item in rows if found == reason] for reason, _ in rows}


def run_until_quiet(ctx, engine, *, at_most):
    """Tick until it waits for rows, every back-off cut short; the accounts add up at each step. Return the runs."""
    for _ in range(6 * at_most):
        worked = tick(ctx)
        assert look(engine)[0].rows_unaccounted == 0
        if not worked and ctx.live.decision == ("wait", "backing_off"):
            let_back_off_pass(engine)
        elif not worked and ctx.live.decision == ("wait", "too_few_rows"):
            break
    with engine.connect() as conn:
        runs = fetch_runs(conn, line_of(engine).id, limit=100)
    assert len(runs) <= at_most
    return runs[::-1]


def failing_on(*culprits):
    return lambda items: NAN if items & set(culprits) else None


@pytest.mark.parametrize(
    ("num", "threshold", "culprits"),
    [
        (9, 8, [0]),
        (9, 8, [8]),
        (60, 59, [29]),
        (10, 8, [3, 4]),
        (2, 1, [1]),
        (1, 1, [0]),
        (12, 4, [5]),  # a probe of a threshold of rows is judged and published like any other run
        (12, 3, [1, 10]),
    ],
)
def test_exactly_the_culprits_are_quarantined_and_all_others_are_trained_on(
    begin, engine, child, num, threshold, culprits
):
    ctx, ids = begin(num, threshold=threshold)
    child.fails = failing_on(*(ids[place] for place in culprits))
    probes = math.ceil(math.log2(num)) + 1

    run_until_quiet(ctx, engine, at_most=(BISECT_AFTER + probes + 1) * len(culprits) + 3)

    report, quarantined = look(engine)
    assert quarantined == {"nan": [ids[place] for place in culprits]}
    if num > len(culprits):
        assert report.by_state["trained"] + report.by_state["pending"] == num - len(culprits)
        assert report.by_state["trained"] >= min(threshold, num - len(culprits))


def test_a_failure_that_does_not_repeat_in_any_half_quarantines_nothing_and_backs_off_further(begin, engine, child):
    ctx, ids = begin(16)
    # Needs the first and the last row together.
    child.fails = lambda items: NAN if {ids[0], ids[-1]} <= items else None

    for _ in range(40):
        if not tick(ctx) and ctx.live.decision == ("wait", "backing_off"):
            if len(child.seen) > BISECT_AFTER + 4:
                break
            let_back_off_pass(engine)

    report, quarantined = look(engine)
    assert quarantined == {}
    assert report.by_state["pending"] == 16
    assert [len(seen) for seen in child.seen] == [16] * 3 + [8, 4, 2, 1, 1] + [16]
    assert line_of(engine).num_failures == BISECT_AFTER + 1


def test_the_search_can_be_followed_in_why_and_in_the_runs(begin, engine, child):
    ctx, ids = begin(4, threshold=3)
    child.fails = failing_on(ids[3])

    runs = run_until_quiet(ctx, engine, at_most=8)

    assert [(run.state, run.reason, run.figures.get("probe")) for run in runs] == [
        *[("failed", "nan", None)] * 3,
        ("held", "probe_passed", 4),
        ("held", "probe_passed", 2),
        ("failed", "nan", 1),
        ("promoted", "better_than_base", None),
    ]
    with engine.connect() as conn:
        decisions = fetch_decisions(conn, line_of(engine).id, limit=50)
    told = [(one["verdict"], one["reason"]) for one in decisions[::-1]]
    assert ("train", "bisecting") in told
    assert ("cleared", "probe_passed") in told
    (found,) = [one for one in decisions if one["verdict"] == "quarantined"]
    assert (found["reason"], found["inputs"]["item_id"], found["inputs"]["run"]) == ("nan", ids[3], 6)
    assert found["inputs"]["path"].endswith(".py")
    began = next(one for one in decisions[::-1] if one["inputs"].get("suspects"))
    assert (began["verdict"], began["inputs"]["suspects"], began["inputs"]["caused_by_data_in_a_row"]) == (
        "failed",
        4,
        3,
    )


def begin_search(begin, engine, child, num=8):
    """Fail until the rows are under suspicion and the first probe may start."""
    ctx, ids = begin(num)
    child.fails = failing_on(*ids)
    loop = loop_of(ctx)
    for _ in range(BISECT_AFTER):
        let_back_off_pass(engine)
        loop.run()
    assert {reason: len(items) for reason, items in look(engine)[1].items()} == {"probe": num // 2, "suspect": num // 2}
    let_back_off_pass(engine)
    return ctx, ids, loop


@pytest.mark.parametrize(
    ("failure", "delay_s"),
    [(FULL, 2**BISECT_AFTER), (NAN, 1)],
)
def test_a_probe_that_fails_for_another_reason_is_tried_again_after_the_doubled_back_off(
    begin, engine, child, failure, delay_s
):
    *_, loop = begin_search(begin, engine, child)
    child.fails = lambda _: failure

    loop.run()

    with engine.connect() as conn:
        inputs = next(one for one in fetch_decisions(conn, line_of(engine).id, limit=9) if one["verdict"] == "failed")
        assert inputs["inputs"]["retry_in_s"] == delay_s
    left = {reason: len(items) for reason, items in look(engine)[1].items()}
    assert left == ({"probe": 4, "suspect": 4} if failure is FULL else {"probe": 2, "suspect": 2})


def test_failures_that_data_did_not_cause_are_left_out_of_the_count(begin, engine, child):
    ctx, _ = begin(8)
    loop = loop_of(ctx)

    for failure in (NAN, FULL, NAN, FULL, FULL):
        child.fails = lambda _, failure=failure: failure
        loop.run()
        let_back_off_pass(engine)
        assert look(engine)[1] == {}
    child.fails = lambda _: NAN
    loop.run()

    assert set(look(engine)[1]) == {"probe", "suspect"}


def test_a_round_that_ends_otherwise_ends_the_count(begin, engine, child):
    ctx, _ = begin(8, threshold=4)
    loop = loop_of(ctx)
    for fails in (True, True, False, True, True):
        child.fails = lambda _, fails=fails: NAN if fails else None
        loop.run()
        let_back_off_pass(engine)
        if not fails:
            with engine.begin() as conn:
                add_files(conn, add_repository(conn), 4)

    assert line_of(engine).current_version == 1
    assert look(engine)[1] == {}


def test_what_goes_wrong_in_an_evaluation_is_not_the_doing_of_the_rows(begin, engine, monkeypatch, child):
    ctx, _ = begin(8)

    def fails_to_evaluate(verb, job, caller, **values):
        if verb == "train":
            return child(verb, job, caller, **values)
        (job / "error.json").write_text(NAN.model_dump_json())
        return "failed"

    monkeypatch.setattr("daemon.rounds.run_child", fails_to_evaluate)
    for _ in range(BISECT_AFTER + 1):
        loop_of(ctx).run()
        let_back_off_pass(engine)

    assert [len(seen) for seen in child.seen] == [8] * (BISECT_AFTER + 1)
    assert line_of(engine).num_failures == BISECT_AFTER + 1


def test_a_paused_line_probes_nothing(begin, engine, child):
    ctx, _, loop = begin_search(begin, engine, child)
    with engine.begin() as conn:
        set_paused(conn, line_of(engine).id, True)

    loop.run()

    assert ctx.live.decision == ("wait", "paused")
    assert len(child.seen) == BISECT_AFTER


def test_rows_that_vanish_while_they_are_under_suspicion_drop_out(begin, engine, child):
    ctx, ids, _ = begin_search(begin, engine, child)
    with engine.begin() as conn:
        exclude_files(conn, ids[:4], "vanished")  # the whole probe
        exclude_files(conn, ids[4:5], "vanished")
    child.fails = failing_on(ids[6])

    run_until_quiet(ctx, engine, at_most=BISECT_AFTER + 4)

    report, quarantined = look(engine)
    assert quarantined == {"nan": [ids[6]]}
    assert (report.by_state["excluded"], report.by_state["pending"]) == (5, 2)


def test_a_search_whose_rows_have_all_vanished_is_over(begin, engine, child):
    ctx, ids, loop = begin_search(begin, engine, child)
    with engine.begin() as conn:
        exclude_files(conn, ids, "vanished")

    loop.run()

    report, quarantined = look(engine)
    assert (quarantined, report.by_state["excluded"]) == ({}, 8)
    assert ctx.live.decision == ("wait", "too_few_rows")


@pytest.mark.parametrize(
    ("point", "culprit"),
    [
        ("run.after_claim", 1),
        ("run.before_release", 1),
        ("run.after_release", 1),
        ("run.after_training", 6),
        ("probe.after_pass", 6),
    ],
)
def test_a_search_that_breaks_off_anywhere_goes_on_where_it_was(begin, engine, child, point, culprit):
    ctx, ids, loop = begin_search(begin, engine, child)
    child.fails = failing_on(ids[culprit])
    failpoints.arm({failpoints.ENVIRONMENT_VARIABLE: f"{point}=raise"}, "tiny")
    loop.run()
    failpoints.arm({}, "tiny")
    assert point in ctx.live.step_error

    run_until_quiet(ctx, engine, at_most=BISECT_AFTER + 4)

    assert look(engine)[1] == {"nan": [ids[culprit]]}


def test_a_probe_replays_nothing_and_takes_exactly_its_half(begin, engine, child):
    ctx, ids, _ = begin_search(begin, engine, child)
    with engine.begin() as conn:
        add_files(conn, add_repository(conn), 20)

    assert tick(ctx)

    with engine.connect() as conn:
        assert fetch_open_run(conn, line_of(engine).id).figures == {"probe": 8}
        assert count_suspects(conn, line_of(engine).id) == 4
    tick(ctx)
    tick(ctx)
    assert child.seen[-1] == set(ids[:4])


@pytest.fixture
def ask(settings, database_url, tmp_path):
    """Give `codelupe train release` these words; return what it says and its exit status."""
    everything = SimpleNamespace(
        home=tmp_path / "home", database=DatabaseSettings(database_url=SecretStr(database_url)), daemon=settings
    )

    def run(*words):
        done = CliRunner().invoke(train, ["release", *words], obj=everything)
        return done.output, done.exit_code

    return run


def test_quarantined_rows_are_given_back_as_the_operator_asks(begin, engine, child, ask):
    ctx, ids = begin(4, threshold=3)
    child.fails = failing_on(ids[3])
    run_until_quiet(ctx, engine, at_most=8)

    wrong, wrong_status = ask("--reason", "loss_spike")
    said, status = ask("--reason", "nan")

    assert (wrong_status, status) == (1, 0), said
    assert "'loss_spike'; there are: nan (1)" in wrong
    assert "1 quarantined rows are pending again" in said
    report, quarantined = look(engine)
    assert (quarantined, report.by_state["pending"]) == ({}, 1)
    with engine.connect() as conn:
        (newest,) = fetch_decisions(conn, line_of(engine).id, limit=1)
    assert (newest["verdict"], newest["inputs"]["rows"]) == ("released", 1)
    assert "there are: none" in ask()[0]


def test_rows_are_not_given_back_while_some_of_them_are_tried(begin, engine, child, ask):
    ctx, *_ = begin_search(begin, engine, child)
    assert tick(ctx)

    said, status = ask()

    assert status == 1
    assert "run 4 is trying suspects" in said
    assert "codelupe train cancel" in said
