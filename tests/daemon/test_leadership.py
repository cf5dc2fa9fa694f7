"""One leader per line: taken, kept, handed over, and never taken from one who may still be there."""

import pytest

from daemon.leadership import Leadership
from schema.leases import StaleFence, check_fence

LINE = "line:micro"


@pytest.fixture
def lead(engine):
    """Build a daemon's leases with a given length."""
    return lambda holder, length_s=60.0: Leadership(engine, holder, length_s)


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
    keeper, other = lead("keeper", 0.4), lead("other", 0.4)

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
