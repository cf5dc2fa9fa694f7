import pytest

from monitoring.health import Facts, assess, ready

WELL = {"database_up": True, "silent_s": 1.0, "max_silent_s": 60.0, "current_version": 3, "version_verified": True}


@pytest.mark.parametrize(
    ("change", "status", "reasons", "is_ready"),
    [
        ({}, "ok", [], True),
        ({"current_version": None, "version_verified": False}, "ok", ["no_version_yet"], True),
        ({"started": False}, "ok", ["starting"], False),
        ({"paused": True}, "ok", ["paused"], True),
        ({"lease_held": False}, "ok", ["standby"], True),
        ({"database_up": False}, "degraded", ["database_away"], False),  # an outage is no reason to restart us (I9)
        ({"version_verified": False}, "degraded", ["version_unverified"], True),
        ({"failures_in_a_row": 2}, "ok", [], True),
        ({"failures_in_a_row": 3}, "degraded", ["runs_failing"], True),
        ({"step_failing": True}, "degraded", ["step_failing"], True),
        ({"does_not_fit": True}, "degraded", ["does_not_fit"], True),
        ({"settings_refused": True}, "degraded", ["settings_refused"], True),
        ({"rows_unaccounted": 1}, "degraded", ["rows_unaccounted"], True),
        ({"silent_s": 61.0}, "down", ["loop_silent"], False),
        ({"silent_s": 61.0, "started": False}, "down", ["loop_silent", "starting"], False),
        ({"silent_s": 61.0, "database_up": False}, "down", ["loop_silent", "database_away"], False),
        ({"trains": False, "current_version": None, "lease_held": False}, "ok", [], True),  # ingest
    ],
)
def test_a_fact_gives_a_status_a_reason_and_readiness(change, status, reasons, is_ready):
    facts = Facts(**{**WELL, **change})
    assert (assess(facts).status, assess(facts).reasons, ready(facts)[0]) == (status, reasons, is_ready)


def test_whoever_is_not_ready_says_why():
    assert ready(Facts(**{**WELL, "database_up": False, "started": False})) == (False, ["database_away", "starting"])


@pytest.mark.parametrize(
    ("version", "verified", "loaded"), [(None, False, False), (None, True, False), (3, False, False), (3, True, True)]
)
def test_the_model_is_loaded_when_the_current_version_is_present_and_verified(version, verified, loaded):
    health = assess(Facts(**{**WELL, "current_version": version, "version_verified": verified, "last_trained_id": 90}))
    assert health.to_json() == {
        "status": health.status,
        "reasons": health.reasons,
        "model_loaded": loaded,
        "last_trained_id": 90,
        "current_version": version,
    }
