import itertools
import json
import math

import pytest

from daemon.curve import Curve

MOST_POINTS = 400


def follow(curve, first, last, run="a"):
    for step in range(first, last + 1):
        curve.take(run, {"event": "step", "step": step, "loss": 3.0 - step / 10_000})


def test_a_curve_holds_steps_evaluations_and_what_it_started_from():
    curve = Curve()
    curve.take("a", {"event": "eval", "step": 0, "loss": 2.5})
    follow(curve, 1, 3)
    curve.take("a", {"event": "eval", "step": 3, "loss": 2.4})
    shown = curve.to_json()
    assert [step for step, _ in shown["train"]] == [1, 2, 3]
    assert (shown["eval"], shown["start"]) == ([(0, 2.5), (3, 2.4)], 2.5)
    json.dumps(shown, allow_nan=False)


def test_a_long_curve_is_thinned_evenly():
    curve = Curve()
    follow(curve, 1, 20_000)
    steps = [step for step, _ in curve.to_json()["train"]]
    assert MOST_POINTS / 2 <= len(steps) <= MOST_POINTS
    assert {later - earlier for earlier, later in itertools.pairwise(steps)} == {steps[0]}


def test_a_run_that_resumes_goes_back_to_its_step():
    curve = Curve()
    follow(curve, 1, 9)
    curve.take("a", {"event": "eval", "step": 8, "loss": 2.0})
    follow(curve, 5, 6)
    curve.take("a", {"event": "eval", "step": 6, "loss": 2.2})
    assert [step for step, _ in curve.to_json()["train"]] == [1, 2, 3, 4, 5, 6]
    assert curve.to_json()["eval"] == [(6, 2.2)]


def test_another_run_begins_a_new_curve():
    curve = Curve()
    curve.take("a", {"event": "eval", "step": 0, "loss": 2.5})
    follow(curve, 1, 9)
    follow(curve, 1, 1, run="b")
    assert (curve.run, len(curve.to_json()["train"]), curve.to_json()["start"]) == ("b", 1, None)


@pytest.mark.parametrize(
    "event", [{"event": "phase"}, {"event": "step", "step": 1}, {"event": "eval", "loss": math.nan}]
)
def test_what_has_no_step_and_loss_changes_nothing(event):
    curve = Curve()
    curve.take("a", event)
    assert curve == Curve()
