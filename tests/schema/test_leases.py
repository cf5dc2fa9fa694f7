import datetime as dt

import pytest
import sqlalchemy as sa

from schema.leases import (
    StaleFence,
    acquire_lease,
    check_fence,
    fetch_lease,
    release_lease,
    renew_lease,
    take_over_lease,
)
from schema.repositories import claim_repository, give_back_repository
from tests.builders import claim_source


def expire(conn):
    conn.execute(sa.text("UPDATE leases SET until = now() - interval '1 s'"))


def test_a_lease_has_one_holder(conn):
    held = acquire_lease(conn, "line:a", "one", length_s=60)
    assert held.fence == 1
    assert acquire_lease(conn, "line:a", "two", length_s=60) is None
    assert acquire_lease(conn, "line:b", "two", length_s=60).fence == 1
    assert fetch_lease(conn, "line:a")["holder"] == "one"
    assert fetch_lease(conn, "line:c") is None


def test_acquiring_ones_own_lease_again_keeps_the_fence(conn):
    assert acquire_lease(conn, "line:a", "one", length_s=60) == acquire_lease(conn, "line:a", "one", length_s=60)


@pytest.mark.parametrize("holder", ["one", "two"])
def test_the_fence_grows_when_an_expired_lease_is_taken(holder, conn):
    old = acquire_lease(conn, "line:a", "one", length_s=60)
    expire(conn)
    assert fetch_lease(conn, "line:a")["expired"]
    assert acquire_lease(conn, "line:a", holder, length_s=60).fence == old.fence + 1


def test_a_holder_that_was_overtaken_can_neither_renew_nor_write_nor_release(conn):
    old = acquire_lease(conn, "line:a", "one", length_s=60)
    expire(conn)
    new = acquire_lease(conn, "line:a", "two", length_s=60)
    assert not renew_lease(conn, old, length_s=60)
    release_lease(conn, old)
    check_fence(conn, new)
    with pytest.raises(StaleFence, match="one has lost the lease line:a"):
        check_fence(conn, old)


def test_an_expired_lease_that_nobody_took_is_still_ours(conn):
    held = acquire_lease(conn, "line:a", "one", length_s=60)
    expire(conn)
    check_fence(conn, held)
    assert renew_lease(conn, held, length_s=60)
    assert not fetch_lease(conn, "line:a")["expired"]


def test_a_released_lease_is_free_at_once_and_its_fence_goes_on(conn):
    release_lease(conn, acquire_lease(conn, "line:a", "one", length_s=60))
    assert acquire_lease(conn, "line:a", "two", length_s=60).fence == 2


def test_nobody_takes_a_lease_over_while_a_checked_transaction_is_open(engine):
    with engine.begin() as conn:
        held = acquire_lease(conn, "line:a", "one", length_s=60)
        expire(conn)
    with engine.connect() as writer, engine.connect() as thief:
        check_fence(writer, held)
        thief.execute(sa.text("SET LOCAL lock_timeout = '10ms'"))
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            acquire_lease(thief, "line:a", "two", length_s=60)


def test_a_lease_is_taken_over_only_as_it_was_seen(conn):
    acquire_lease(conn, "line:a", "one", length_s=60)
    seen = fetch_lease(conn, "line:a")
    for changed in ({"holder": "other"}, {"fence": 7}, {"until": seen["until"] + dt.timedelta(microseconds=1)}):
        assert take_over_lease(conn, "line:a", "two", seen=seen | changed, length_s=60) is None
    assert take_over_lease(conn, "line:a", "two", seen=seen, length_s=60).fence == 2
    assert take_over_lease(conn, "line:a", "three", seen=seen, length_s=60) is None


def _queued(conn):
    claim = claim_source(conn, "/sources/a")
    give_back_repository(conn, claim, "stopped")


def _working(conn):
    claim_source(conn, "/sources/a")


@pytest.mark.parametrize(
    ("state", "column", "ahead", "is_due"),
    [
        (_queued, "not_before", "-1 s", True),
        (_queued, "not_before", "1 hour", False),
        (_queued, "not_before", "1 day", False),
        (_queued, "not_before", "3 days", True),
        (_working, "lease_until", "-1 s", True),
        (_working, "lease_until", "59 s", False),
        (_working, "lease_until", "1 hour", True),
        (_working, "lease_until", "10 years", True),
    ],
)
def test_a_time_that_no_clock_of_now_could_have_written_keeps_no_source(state, column, ahead, is_due, conn):
    state(conn)
    conn.execute(sa.text(f"UPDATE repositories SET {column} = now() + CAST(:ahead AS interval)"), {"ahead": ahead})

    assert (claim_repository(conn, lease_s=60) is not None) == is_due
