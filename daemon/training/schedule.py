"""The arithmetic of a training: its learning rate, its speed, and when its loss has run away."""

import math
from collections.abc import Sequence

FLOOR = 0.1  # the learning rate falls to this share of its peak
SPIKE_FACTOR, SPIKE_NATS = 2.0, 2.0  # a spike is above both: so many times the first loss, and so much more


def rate_share(step: int, *, num_steps: int, warmup_steps: int) -> float:
    """Return the share of the peak learning rate in a step, counted from 0."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def checkpoint_interval(wanted_s: float, *, last_s: float, run_s: float) -> float:
    """Return the seconds from one checkpoint to the next.

    Of a run longer than an hour they take a hundredth at most: a large adapter's are gigabytes to write and hash.

    Args:
        wanted_s: what the settings say.
        last_s: seconds that the last one took.
        run_s: seconds of the whole run, as far as can be foreseen.
    """
    return max(wanted_s, 100 * last_s) if run_s > 3600 else wanted_s


def tokens_per_second(steps: Sequence[tuple[float, int]], started_at: float) -> float:
    """Return the rate since the end of the first of these steps (its own time is not known), or of the only one.

    Args:
        steps: when each ended, and its tokens.
        started_at: when the run did.
    """
    (since, left_out), now = steps[0] if len(steps) > 1 else (started_at, 0), steps[-1][0]
    return max(1, sum(tokens for _, tokens in steps) - left_out) / max(1e-6, now - since)


def is_spike(loss: float, first: float) -> bool:
    """Whether a smoothed loss is so far above that of the first steps that the run is lost.

    Not above the best one: a base from scratch begins so high that its validation loss shows anything less, sooner.
    """
    return loss > max(SPIKE_FACTOR * first, first + SPIKE_NATS)
