"""A loss curve as the points of an SVG: pure arithmetic, drawn by the page's template.

The box is stretched to whatever room there is; its labels are text beside it, so that they keep their size.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 1000, 300
_NUM_TICKS = 4

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """What to draw, in the units of a WIDTH by HEIGHT box, and what it says in words."""

    train: str
    evaluations: str
    dots: list[Point]
    start: float | None
    """Height of the line of what the run continues."""
    ticks: list[tuple[float, str]]
    """Height and label of each line of the scale, from the top."""
    last_step: int
    """The right end of the axis; the left one is 0."""
    words: str


def draw_loss(curve: Mapping[str, Any], total: int | None) -> Chart | None:
    """Draw the curve of a run of `total` steps; None while there is nothing to draw."""
    train, evaluations = _read(curve.get("train")), _read(curve.get("eval"))
    start = curve.get("start")
    start = float(start) if isinstance(start, int | float) and math.isfinite(start) else None
    points = [*train, *evaluations]
    if not points:
        return None
    last = max(total or 0, 1, *(int(step) for step, _ in points))
    losses = [loss for _, loss in points] + ([start] if start is not None else [])
    low, high = _pad(min(losses), max(losses))

    def place(point: Point) -> Point:
        return (
            round(point[0] / last * WIDTH, 1),
            round((high - point[1]) / (high - low) * HEIGHT, 1),
        )

    values = [high - (high - low) * number / (_NUM_TICKS - 1) for number in range(_NUM_TICKS)]
    return Chart(
        train=_join(map(place, train)),
        evaluations=_join(map(place, evaluations)),
        dots=[place(point) for point in evaluations],
        start=None if start is None else place((0, start))[1],
        ticks=[(place((0, value))[1], f"{value:.2f}") for value in values],
        last_step=last,
        words=_describe(train, evaluations, start),
    )


def _read(points: object) -> list[Point]:
    found = points if isinstance(points, Sequence) else []
    return [(float(step), float(loss)) for step, loss in found if math.isfinite(loss)]


def _pad(low: float, high: float) -> tuple[float, float]:
    margin = max(0.05 * (high - low), 0.01)
    return low - margin, high + margin


def _join(points: Iterable[Point]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _describe(train: list[Point], evaluations: list[Point], start: float | None) -> str:
    parts = []
    if train:
        parts.append(
            f"training loss {train[0][1]:.3f} at step {train[0][0]:.0f}, {train[-1][1]:.3f} at {train[-1][0]:.0f}"
        )
    if evaluations:
        parts.append(f"validation loss now {evaluations[-1][1]:.3f}")
    if start is not None:
        parts.append(f"{start:.3f} before the first step")
    return "; ".join(parts)
