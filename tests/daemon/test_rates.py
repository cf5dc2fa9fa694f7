"""What a learning-rate range test says of its curve."""

import math

import pytest

from daemon.rates import Point, has_diverged, rate_of, smooth, suggest


def curve(losses: list[float]) -> list[Point]:
    rates = [rate_of(step, len(losses), 1e-6, 1.0) for step in range(len(losses))]
    return [Point(*one) for one in zip(rates, losses, smooth(losses), strict=True)]


def falling_to(step: int, *, runs_away: bool) -> list[Point]:
    """Ten nats, falling around a step by four, and a jump at the end where asked."""
    losses = [10 - 4 / (1 + math.exp(-(number - step) / 3)) for number in range(80)]
    return curve([*losses, *([40.0] * 10 if runs_away else [])])


def test_rates_rise_by_the_same_factor_from_the_lowest_to_the_highest():
    rates = [rate_of(step, 4, 1e-6, 1e-3) for step in range(4)]
    assert rates == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3])


def test_smoothing_begins_with_the_first_loss_and_follows_late():
    assert smooth([4.0, 4.0, 4.0]) == pytest.approx([4.0, 4.0, 4.0])
    assert 4.0 < smooth([5.0, 5.0, 4.0])[-1] < 5.0


def test_the_rate_of_the_steepest_fall_is_suggested():
    points = falling_to(40, runs_away=False)
    found = suggest(points)
    assert found.diverged is None
    assert found.rate == found.steepest
    # The mean follows some steps late.
    assert points[36].rate < found.rate < points[56].rate


def test_a_tenth_of_where_it_runs_away_is_suggested_if_that_is_less():
    points = falling_to(76, runs_away=True)
    found = suggest(points)
    assert found.diverged == points[-1].rate
    assert found.rate == found.diverged / 10 < found.steepest


@pytest.mark.parametrize(
    "losses",
    [
        [5.0] * 20,  # level
        [5.0 + 0.01 * step for step in range(20)],  # rising
        [],
    ],
)
def test_a_loss_that_never_falls_suggests_nothing(losses: list[float]):
    assert suggest(curve(losses)).rate is None


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ([5.0, 4.0, math.nan], True),
        ([5.0, 4.0, math.inf], True),
        ([5.0, 4.0, 4.5], False),  # a single bad step
        ([4.0] * 20 + [9.0] * 5, True),
    ],
)
def test_no_number_or_a_mean_far_above_the_lowest_is_the_end(losses: list[float], diverged: bool):
    assert has_diverged(losses) is diverged
