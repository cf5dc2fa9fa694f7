import pytest
import sqlalchemy as sa

from schema.repositories import (
    StaleLease,
    add_source,
    check_claim,
    claim_repository,
    fetch_queue_counts,
    fetch_repositories,
    is_drained,
    refuse_repository,
    renew_repository,
    retry_repository,
    set_local_path,
    set_unit_level,
)
from tests.builders import add_repository, claim_source, finish


def add(conn, name, **values):
    return add_source(conn, source=f"/sources/{name}", kind="folder", name=name, **values)


def expire_leases(conn):
    conn.execute(sa.text("UPDATE repositories SET lease_until = now() - interval '1 s' WHERE state = 'working'"))


def test_a_source_is_added_once(conn):
    first, is_new = add(conn, "a")
    assert is_new
    assert add(conn, "a") == (first, False)
    assert fetch_queue_counts(conn) == {"queued": 1, "working": 0, "done": 0, "refused": 0, "dead": 0}


def test_the_best_priority_is_claimed_first_and_then_the_oldest(conn):
    for name, priority in [("a", 0), ("b", 5), ("c", 0)]:
        add(conn, name, priority=priority)
    assert [claim_repository(conn, lease_s=60).name for _ in range(3)] == ["b", "a", "c"]
    assert claim_repository(conn, lease_s=60) is None


def test_two_workers_get_two_repositories(engine):
    with engine.begin() as conn:
        add(conn, "a")
        add(conn, "b")
    with engine.connect() as one, engine.connect() as other:
        assert claim_repository(one, lease_s=60).name == "a"
        assert claim_repository(other, lease_s=60).name == "b"


def test_a_finished_visit_stores_its_figures_and_leaves_the_queue(conn):
    repository_id = add_repository(conn)
    (row,) = fetch_repositories(conn, limit=1)
    assert (row["id"], row["state"], row["refusals"], row["licence"]) == (repository_id, "done", {"binary": 1}, "MIT")
    assert row["lease_token"] is None
    assert is_drained(conn)


@pytest.mark.parametrize("end", ["done", "refused", "dead"])
def test_a_finished_source_that_is_added_again_is_queued_again(end, conn):
    claim = claim_source(conn, "/sources/a")
    if end == "done":
        finish(conn, claim)
    elif end == "refused":
        refuse_repository(conn, claim, "not_a_repository")
    else:
        assert retry_repository(conn, claim, "timeout", delay_s=60, max_attempts=1) == "dead"
    assert fetch_queue_counts(conn)[end] == 1
    assert add(conn, "a") == (claim.repository_id, False)
    assert claim_repository(conn, lease_s=60).attempts == 1


def test_a_retry_waits_for_its_time(conn):
    claim = claim_source(conn)
    assert retry_repository(conn, claim, "timeout", delay_s=60, max_attempts=5) == "queued"
    assert claim_repository(conn, lease_s=60) is None
    assert not is_drained(conn)
    assert fetch_repositories(conn, limit=1)[0]["reason"] == "timeout"


def test_a_retry_without_delay_is_claimed_with_one_more_attempt(engine):
    with engine.begin() as conn:
        retry_repository(conn, claim_source(conn), "timeout", delay_s=0, max_attempts=5)
    with engine.begin() as conn:
        assert claim_repository(conn, lease_s=60).attempts == 2


def test_an_expired_lease_is_taken_over_and_the_old_worker_refused(conn):
    old = claim_source(conn)
    expire_leases(conn)
    new = claim_repository(conn, lease_s=60)
    assert (new.repository_id, new.attempts) == (old.repository_id, 2)
    assert not renew_repository(conn, old, lease_s=60)
    for write in (
        lambda: finish(conn, old),
        lambda: refuse_repository(conn, old, "x"),
        lambda: retry_repository(conn, old, "x", delay_s=0, max_attempts=5),
        lambda: set_unit_level(conn, old, "top"),
        lambda: check_claim(conn, old),
    ):
        with pytest.raises(StaleLease, match="not held by this worker"):
            write()
    check_claim(conn, new)


def test_a_renewed_lease_is_not_taken_over(conn):
    claim = claim_source(conn)
    expire_leases(conn)
    assert renew_repository(conn, claim, lease_s=60)
    assert claim_repository(conn, lease_s=60) is None


def test_the_unit_level_and_the_clone_are_remembered(conn):
    claim = claim_source(conn, "/sources/a")
    set_unit_level(conn, claim, "top")
    set_local_path(conn, claim, "/clones/1")
    assert fetch_repositories(conn, limit=1)[0]["local_path"] == "/clones/1"
    finish(conn, claim)
    assert claim_source(conn, "/sources/a").unit_level == "top"
