"""What a learning-rate range test says: the smoothed loss at each rate, and the rate to train with. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SMOOTHING = 0.9  # of the loss: the share of what was before
DIVERGED = 1.2  # so many times the lowest smoothed loss, and the run is lost
FELL = 0.99  # a smoothed loss that never was below so much of the first one has not fallen
_UNSETTLED = 5  # steps at the start whose slopes say little


@dataclass(frozen=True, slots=True)
class Point:
    """One step."""

    rate: float
    loss: float
    smoothed: float


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Where to set the peak of the learning rate."""

    steepest: float | None
    """Rate at which the smoothed loss falls fastest; none where it never falls."""
    diverged: float | None
    """Rate at which it has run away; none where it has not."""

    @property
    def rate(self) -> float | None:
        """The steepest one, or a tenth of the diverged one if that is less; none where the loss never falls."""
        if self.steepest is None or self.diverged is None:
            return self.steepest
        return min(self.steepest, self.diverged / 10)


def rate_of(step: int, num_steps: int, low: float, high: float) -> float:
    """Return the rate of a step, counted from 0: from `low` to `high`, each as many times the one before."""
    return low * math.pow(high / low, step / max(1, num_steps - 1))


def smooth(losses: Sequence[float]) -> list[float]:
    """Return the exponential mean at each step, corrected for its start."""
    mean, smoothed = 0.0, []
    for number, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**number))
    return smoothed


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the last loss is no number, or the smoothed one far above its lowest."""
    smoothed = smooth(losses)
    return not math.isfinite(losses[-1]) or smoothed[-1] > DIVERGED * min(smoothed)


def suggest(points: Sequence[Point]) -> Suggestion:
    """Read the curve: the steepest fall before the lowest point, and where it ran away."""
    finite = [point for point in points if math.isfinite(point.smoothed)]
    lowest = min(range(len(finite)), key=lambda index: finite[index].smoothed, default=0)
    falling = finite[_UNSETTLED : lowest + 1]
    slopes = [
        ((after.smoothed - before.smoothed) / math.log(after.rate / before.rate), after.rate)
        for before, after in pairwise(falling)
    ]
    slope, rate = min(slopes, default=(0.0, 0.0))
    diverged = points[-1].rate if points and has_diverged([point.loss for point in points]) else None
    has_fallen = slope < 0 and finite[lowest].smoothed < FELL * finite[0].smoothed
    return Suggestion(rate if has_fallen else None, diverged)
