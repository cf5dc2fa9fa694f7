import math

import pytest

from monitoring.chart import HEIGHT, WIDTH, draw_loss

CURVE = {"train": [(1, 3.0), (50, 2.5), (100, 2.0)], "eval": [(0, 2.4), (100, 2.1)], "start": 2.4}


def points(text):
    return [tuple(map(float, point.split(","))) for point in text.split()]


def test_a_lower_loss_is_drawn_lower_and_a_later_step_further_right():
    chart = draw_loss(CURVE, 200)
    train = points(chart.train)
    assert [x for x, _ in train] == sorted(x for x, _ in train)
    assert [y for _, y in train] == sorted(y for _, y in train)
    assert train[-1][0] < WIDTH * 0.6, "half of the run is still to come"
    assert chart.start == points(chart.evaluations)[0][1]
    assert "validation loss now 2.100; 2.400 before the first step" in chart.words


@pytest.mark.parametrize(
    "curve",
    [
        CURVE,
        {"train": [(1, 2.0)]},
        {"eval": [(0, 2.0)], "start": 2.0},
        {"train": [(1, 2.0), (2, 2.0)], "start": math.nan},
        {"train": [(1, math.nan), (2, 1e9), (3, 2.0)]},
    ],
)
def test_everything_is_drawn_inside_the_box(curve):
    chart = draw_loss(curve, None)
    for x, y in [*points(chart.train), *points(chart.evaluations), *chart.dots]:
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


@pytest.mark.parametrize("curve", [{}, {"train": [], "eval": []}, {"train": [(1, math.nan)], "start": 2.0}])
def test_without_a_figure_nothing_is_drawn(curve):
    assert draw_loss(curve, 100) is None
