"""The decision to train, as a table."""

from dataclasses import replace

import pytest

from daemon.policy import Facts, decide, num_needed

READY = Facts(
    paused=False,
    requested=False,
    needs_base=False,
    num_fresh=100,
    threshold=100,
    num_test_units=20,
    min_test_units=8,
    sources_unfinished=True,
    retry_in_s=0.0,
)


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({}, "train", "threshold_reached"),
        ({"num_fresh": 99}, "wait", "too_few_rows"),
        ({"num_fresh": 1, "requested": True}, "train", "requested"),
        ({"num_fresh": 0, "requested": True}, "wait", "too_few_rows"),
        ({"paused": True, "requested": True}, "wait", "paused"),
        ({"retry_in_s": 5.0}, "wait", "backing_off"),
        ({"retry_in_s": 5.0, "requested": True}, "train", "requested"),
        ({"num_test_units": 7}, "wait", "too_few_held_out"),
        ({"num_test_units": None}, "wait", "too_few_held_out"),
        ({"needs_base": True}, "wait", "sources_unfinished"),
        ({"needs_base": True, "sources_unfinished": False}, "wait", "too_few_rows"),
        ({"needs_base": True, "sources_unfinished": False, "num_fresh": 200}, "make_base", "base_missing"),
        (
            {"needs_base": True, "sources_unfinished": False, "num_fresh": 200, "num_test_units": 0},
            "wait",
            "too_few_held_out",
        ),
    ],
)
def test_it_decides_by_the_first_rule_that_applies(changes, verdict, reason):
    decision = decide(replace(READY, **changes))

    assert (decision.verdict, decision.reason) == (verdict, reason)


@pytest.mark.parametrize(("changes", "needed"), [({}, 100), ({"needs_base": True}, 200), ({"requested": True}, 1)])
def test_a_base_needs_twice_the_threshold_and_a_request_a_single_row(changes, needed):
    assert num_needed(replace(READY, **changes)) == needed
