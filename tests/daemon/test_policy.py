"""The decision to train, as a table."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from daemon.config import DaemonSettings
from daemon.facts import at_hour
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
OUTSIDE = ("wait", "outside_window")
TOO_LARGE = ("wait", "does_not_fit")
MISFIT = {"misfit": "needs 20.0 GiB, 15.2 can be used on this cuda: take a smaller CODELUPE_BASE_MODEL"}
AGED = {"num_fresh": 10, "oldest_hours": 48.0, "max_age_hours": 48.0, "max_age_rows": 10}
MANY_ROUNDS = {"num_rounds": 8, "consolidate_every": 8}
REGRESSED = {"num_rounds": 1, "consolidate_every": 8, "regression": 0.03, "consolidate_regression": 0.03}
RELEASED = {"num_fresh": 1, "watch_releases": True, "new_releases": "a/b v1.0"}
CHANGED = {"num_fresh": 1, "watched_files": 5, "watch_files": 5}


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
        # What fits no device waits for another setting: neither rows nor time nor a request would help.
        (MISFIT, *TOO_LARGE),
        (MISFIT | {"requested": True}, *TOO_LARGE),
        (MISFIT | {"num_fresh": 0}, *TOO_LARGE),
        (MISFIT | {"retry_in_s": 5.0}, *TOO_LARGE),
        (MISFIT | {"num_suspects": 1}, *TOO_LARGE),
        (MISFIT | {"needs_base": True}, *TOO_LARGE),
        (MISFIT | {"in_window": False}, *TOO_LARGE),
        (MISFIT | {"paused": True}, "wait", "paused"),
        # A row that makes runs fail is sought before anything else is trained on, however few rows there are.
        ({"num_suspects": 1}, "train", "bisecting"),
        ({"num_suspects": 1, "num_fresh": 0, "num_test_units": None}, "train", "bisecting"),
        ({"num_suspects": 1, "requested": True, "retry_in_s": 5.0}, "train", "bisecting"),
        ({"num_suspects": 1, "retry_in_s": 5.0}, "wait", "backing_off"),
        ({"num_suspects": 1, "paused": True}, "wait", "paused"),
        ({"needs_base": True}, "wait", "sources_unfinished"),
        ({"needs_base": True, "sources_unfinished": False}, "wait", "too_few_rows"),
        ({"needs_base": True, "sources_unfinished": False, "num_fresh": 200}, "make_base", "base_missing"),
        (
            {"needs_base": True, "sources_unfinished": False, "num_fresh": 200, "num_test_units": 0},
            "wait",
            "too_few_held_out",
        ),
        # The hour comes last: a wait for it says that all the rest is there.
        ({"in_window": False}, "wait", "outside_window"),
        ({"in_window": False, "num_fresh": 99}, "wait", "too_few_rows"),
        ({"in_window": False, "requested": True}, "train", "requested"),
        ({"in_window": False, "num_suspects": 1}, "wait", "outside_window"),
        ({"in_window": False, "needs_base": True, "sources_unfinished": False, "num_fresh": 200}, *OUTSIDE),
        ({"quiet": True, "requested": True}, "wait", "quiet_hours"),
        ({"quiet": True, "in_window": False}, "wait", "quiet_hours"),
        # Fewer rows do where the oldest has waited long enough; the threshold is the reason where it is reached too.
        (AGED, "train", "rows_aged"),
        (AGED | {"num_fresh": 100}, "train", "threshold_reached"),
        (AGED | {"num_fresh": 9}, "wait", "too_few_rows"),
        (AGED | {"oldest_hours": 47.9}, "wait", "too_few_rows"),
        (AGED | {"oldest_hours": None}, "wait", "too_few_rows"),
        (AGED | {"max_age_hours": None}, "wait", "too_few_rows"),
        (AGED | {"needs_base": True, "sources_unfinished": False}, "wait", "too_few_rows"),
        (AGED | {"num_test_units": 7}, "wait", "too_few_held_out"),
        (AGED | {"retry_in_s": 5.0}, "wait", "backing_off"),
        (CHANGED, "train", "watched_files"),
        (CHANGED | {"watched_files": 4}, "wait", "too_few_rows"),
        (CHANGED | {"num_fresh": 0}, "wait", "too_few_rows"),
        (CHANGED | {"watched_files": 4, "watched_commits": 3, "watch_commits": 3}, "train", "watched_commits"),
        (CHANGED | {"watched_files": 4, "watched_commits": 2, "watch_commits": 3}, "wait", "too_few_rows"),
        (RELEASED, "train", "watched_release"),
        (RELEASED | {"watch_releases": False}, "wait", "too_few_rows"),
        (RELEASED | {"new_releases": ""}, "wait", "too_few_rows"),
        (CHANGED | {"in_window": False}, "wait", "outside_window"),
        # A consolidation takes its time: only a threshold of rows starts it.
        (MANY_ROUNDS, "consolidate", "rounds_reached"),
        (MANY_ROUNDS | {"num_rounds": 7}, "train", "threshold_reached"),
        (MANY_ROUNDS | {"consolidate_every": 0}, "train", "threshold_reached"),
        (MANY_ROUNDS | {"num_fresh": 99}, "wait", "too_few_rows"),
        (MANY_ROUNDS | {"requested": True}, "train", "requested"),
        (MANY_ROUNDS | AGED, "train", "rows_aged"),
        (MANY_ROUNDS | CHANGED, "train", "watched_files"),
        (MANY_ROUNDS | {"num_suspects": 1}, "train", "bisecting"),
        (MANY_ROUNDS | {"in_window": False}, *OUTSIDE),
        (REGRESSED, "consolidate", "old_code_regressed"),
        (REGRESSED | {"regression": 0.029}, "train", "threshold_reached"),
        (REGRESSED | {"regression": None}, "train", "threshold_reached"),
        (REGRESSED | {"regression": 0.0, "held_for_old_code": True}, "consolidate", "old_code_regressed"),
        (REGRESSED | {"consolidate_every": 0}, "train", "threshold_reached"),
    ],
)
def test_it_decides_by_the_first_rule_that_applies(changes, verdict, reason):
    decision = decide(replace(READY, **changes))

    assert (decision.verdict, decision.reason) == (verdict, reason)


@pytest.mark.parametrize(
    ("changes", "needed"), [({}, 100), ({"needs_base": True}, 200), ({"requested": True}, 1), (AGED, 10), (CHANGED, 1)]
)
def test_a_base_needs_twice_the_threshold_and_every_other_trigger_fewer_rows(changes, needed):
    assert num_needed(replace(READY, **changes)) == needed


@pytest.mark.parametrize(
    ("num_units", "missing"),
    [
        (5, "3 held-out units are missing: 5 of 8"),
        (7, "1 held-out unit is missing: 7 of 8"),
        (0, "8 held-out units are missing: 0 of 8"),
    ],
)
def test_it_says_how_many_held_out_units_are_missing(num_units, missing):
    assert decide(replace(READY, num_test_units=num_units)).missing == missing


def test_it_says_when_the_window_opens():
    closed = replace(READY, in_window=False, window_opens="Mon 2026-11-23 22:00 CET")

    assert decide(closed).missing == "runs may begin from Mon 2026-11-23 22:00 CET"


def test_the_hour_is_that_of_the_time_zone_of_the_windows():
    windows = {"train_windows": ["mon 22:00-23:00"], "quiet_hours": ["mon 21:00-22:00"]}
    settings = DaemonSettings(**windows, time_zone="Europe/Berlin")

    facts = [at_hour(READY, settings, datetime(2026, 11, 16, hour, 30, tzinfo=UTC)) for hour in (20, 21, 22)]

    assert [(one.in_window, one.quiet) for one in facts] == [(False, True), (True, False), (False, False)]
    assert facts[0].local_time == "Mon 2026-11-16 21:30 CET"
    assert facts[0].window_opens == "Mon 2026-11-16 22:00 CET"
