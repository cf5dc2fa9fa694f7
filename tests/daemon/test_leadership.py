"""One leader per line: taken, kept, handed over, and never taken from one who may still be there."""

import uuid

import pytest
import sqlalchemy as sa

from daemon.context import Led
from daemon.leadership import Leadership
from daemon.tick import tick
from daemon.verdict import conclude
from schema.leases import StaleFence, check_fence
from schema.lines import fetch_line
from schema.runs import advance_run, claim_run, fetch_open_run, release_run
from schema.versions import fetch_versions, save_version
from tests.builders import ANY
from tests.daemon.conclusions import bring_to_evaluating, evaluation
from tests.proxy import Proxy

LINE = "line:micro"
LENGTH_S = 60.0


@pytest.fixture
def lead(engine):
    """Build a daemon's leases with a given length, or with a clock of its own."""
    return lambda holder, length_s=LENGTH_S, **clock: Leadership(engine, holder, length_s, **clock)


class Clock:
    """A daemon's own clock, which nobody but the test moves."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def look_for(successor, clock, seconds, name=LINE):
    """Let the time pass as a daemon does that looks at the lease of another; return what it has taken at the end."""
    assert successor.take(name) is None
    for _ in range(4):
        clock.now_s += seconds / 4
        taken = successor.take(name)
    return taken


def set_database_clock(engine, change):
    """Move what the database has written against its clock, as if that had been set by minus `change`."""
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE leases SET until = until + CAST(:change AS interval)"), {"change": change})


def test_the_first_leads_and_the_second_waits(lead):
    first, second = lead("first"), lead("second")

    assert first.take(LINE) is not None
    assert second.take(LINE) is None


def test_taking_again_keeps_the_same_fence(lead):
    first = lead("first")

    assert first.take(LINE) == first.take(LINE)


def test_a_lease_given_back_is_taken_at_once(lead):
    first, second = lead("first"), lead("second")
    first.take(LINE)

    first.give_back()

    assert second.take(LINE) is not None


def test_an_expired_lease_is_taken_only_after_it_was_seen_unrenewed_for_its_length(lead):
    dead, successor = lead("dead", 0.3), lead("successor", 0.3)
    dead.take(LINE)

    looks = 1
    while (taken := successor.take(LINE)) is None:
        looks += 1

    assert looks > 1
    assert taken.fence == 2


def test_a_leader_that_comes_back_late_is_refused_by_its_fence(lead, engine):
    late, successor = lead("late", 0.2), lead("successor", 0.2)
    lease = late.take(LINE)
    while successor.take(LINE) is None:
        pass

    late.renew()

    assert not late.holds(lease)
    with engine.begin() as conn, pytest.raises(StaleFence):
        check_fence(conn, lease)


def test_what_is_kept_alive_outlives_its_length_and_is_given_back_at_the_end(lead):
    keeper, other = lead("keeper", 2.0), lead("other", 2.0)

    with keeper.kept_alive():
        lease = keeper.take(LINE)
        # The other looks for longer than the lease lasts: five of its own looks at a renewed lease.
        seen = set()
        while len(seen) < 5:
            assert other.take(LINE) is None
            with keeper.engine.connect() as conn:
                seen.add(conn.exec_driver_sql("SELECT until FROM leases").scalar_one())
        assert keeper.holds(lease)

    assert other.take(LINE) is not None


@pytest.mark.parametrize("change", ["0 s", "1 hour", "10 years", "-1 hour"])
def test_a_dead_leaders_lease_is_taken_after_its_length_however_the_databases_clock_is_set(change, lead, clock, engine):
    dead, successor = lead("dead"), lead("successor", clock=clock)
    dead.take(LINE)
    set_database_clock(engine, change)

    assert look_for(successor, clock, LENGTH_S - 1) is None
    clock.now_s += 1
    taken = successor.take(LINE)

    assert taken.fence == 2
    assert lead("third").take(LINE) is None


@pytest.mark.parametrize("change", ["-1 hour", "-10 years", "1 hour"])
def test_a_living_leader_keeps_lease_and_fence_however_the_databases_clock_is_set(change, lead, clock, engine):
    leader, waiter = lead("leader"), lead("waiter", clock=clock)
    lease = leader.take(LINE)
    waiter.take(LINE)

    for _ in range(8):
        set_database_clock(engine, change)
        leader.renew()
        clock.now_s += LENGTH_S / 2
        assert waiter.take(LINE) is None

    assert leader.holds(lease)
    with engine.begin() as conn:
        check_fence(conn, lease)


def test_a_waiter_begins_to_count_anew_when_the_database_was_away(lead, clock, database_url):
    lead("leader").take(LINE)
    with Proxy(database_url) as proxy:
        engine = sa.create_engine(sa.make_url(proxy.url).set(drivername="postgresql+psycopg"))
        waiter = Leadership(engine, "waiter", LENGTH_S, clock)
        assert waiter.take(LINE) is None
        proxy.go_away()
        clock.now_s += LENGTH_S
        with pytest.raises(sa.exc.OperationalError):
            waiter.take(LINE)
        proxy.come_back()

        # The leader could not renew either: it gets the whole length to do so.
        assert look_for(waiter, clock, LENGTH_S - 1) is None
        clock.now_s += 1
        assert waiter.take(LINE) is not None
        engine.dispose()


def test_a_waiter_begins_to_count_anew_when_the_database_gave_no_answer_for_long(lead, clock):
    lead("leader").take(LINE)
    waiter = lead("waiter", clock=clock)
    look_for(waiter, clock, LENGTH_S / 4)

    # A statement that only comes back when the stall is over: no error tells of it.
    clock.now_s += LENGTH_S * 0.9

    assert look_for(waiter, clock, LENGTH_S - 1) is None
    clock.now_s += 1
    assert waiter.take(LINE) is not None


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes)


def _overtake(ctx, clock):
    """Let another daemon take the line over from `ctx`, which has not noticed; return what it still believes."""
    with ctx.engine.connect() as conn:
        line_id = fetch_line(conn, ctx.settings.line).id
    late = Led(ctx, ctx.leadership.take(ctx.line_lease_name), line_id)
    successor = Leadership(ctx.engine, "successor", LENGTH_S, clock)
    assert look_for(successor, clock, LENGTH_S, ctx.line_lease_name) is not None
    return late


def _claim(conn, late, run):
    claim_run(
        conn,
        run_uuid=str(uuid.uuid4()),
        line_id=late.line_id,
        lease=late.lease,
        kind="adapter",
        limits=ANY,
        min_rows=1,
        config={},
        parent_version=None,
    )


def _advance(conn, late, run):
    advance_run(conn, run, lease=late.lease, to="training")


def _release(conn, late, run):
    release_run(conn, run, lease=late.lease, to="failed", reason="nan", waiting=False)


def _save(conn, late, run):
    save_version(
        conn,
        line_id=late.line_id,
        number=1,
        run_id=run.id,
        parent=None,
        manifest_digest="0" * 64,
        num_bytes=1,
        lease=late.lease,
    )


@pytest.mark.parametrize("write", [_claim, _advance, _release, _save], ids=lambda write: write.__name__.strip("_"))
def test_a_late_leaders_writes_are_refused(write, ctx, clock, engine, rows):
    rows()
    assert tick(ctx)
    late = _overtake(ctx, clock)
    with engine.connect() as conn:
        run = fetch_open_run(conn, late.line_id)

    with pytest.raises(StaleFence), engine.begin() as conn:
        write(conn, late, run)

    with engine.connect() as conn:
        assert fetch_open_run(conn, late.line_id) == run


def test_a_late_leader_promotes_nothing(ctx, clock, engine, rows):
    rows()
    run = bring_to_evaluating(ctx)
    (ctx.paths.job(run.number) / "evaluation.json").write_text(evaluation(-0.05).model_dump_json())
    late = _overtake(ctx, clock)

    with pytest.raises(StaleFence):
        conclude(late, run)

    with engine.connect() as conn:
        assert fetch_versions(conn, late.line_id) == []
        assert fetch_line(conn, ctx.settings.line).current_version is None
