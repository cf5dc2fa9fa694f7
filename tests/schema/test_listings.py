"""The record of API calls is bounded by age and by number."""

import sqlalchemy as sa

from schema.listings import list_calls, prune_calls, record_call

CALL = {"token": "alice", "operation": "pause", "path": "/v1/pause", "address": "127.0.0.1", "status": 200}


def record_calls(engine, num, *, days_ago=0):
    with engine.begin() as conn:
        for _ in range(num):
            record_call(conn, **CALL)
        age = sa.text("UPDATE api_calls SET called_at = now() - make_interval(days => :days) WHERE called_at = now()")
        conn.execute(age, {"days": days_ago})


def prune(engine, **limits):
    """Prune; return how many were removed and which are left, the newest first."""
    with engine.begin() as conn:
        return prune_calls(conn, **limits), [one["id"] for one in list_calls(conn, limit=99)]


def test_calls_of_long_ago_are_removed(engine):
    record_calls(engine, 2, days_ago=31)
    record_calls(engine, 3, days_ago=29)

    assert prune(engine, days=30, rows=99) == (2, [5, 4, 3])


def test_of_many_calls_the_newest_are_kept(engine):
    record_calls(engine, 5)

    assert prune(engine, days=30, rows=5) == (0, [5, 4, 3, 2, 1])
    assert prune(engine, days=30, rows=2) == (3, [5, 4])
