"""The gate: whether a candidate replaces the incumbent, judged on held-out items by a paired bootstrap. Pure."""

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from daemon.job import ItemBits

Verdict = Literal["promote", "hold", "reject"]
Array = NDArray[np.float64]

BASE, INCUMBENT, CANDIDATE = "base", "incumbent", "candidate"
MIN_UNITS = 12  # with fewer units, files are resampled
_CELLS = 4_000_000  # of one matrix of resampling counts


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference in bits per byte, candidate minus reference (below zero: the candidate is better)."""

    delta: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Gate:
    """A verdict and what it rests on. Figures that could not be computed are NaN."""

    verdict: Verdict
    reason: str
    reference: str
    """What the candidate was judged against: the incumbent, without one the base."""
    bits_per_byte: dict[str, float]
    """By model, over all held-out completions; models without a finite figure are left out."""
    delta: float
    """Candidate minus reference, bits per byte."""
    low: float
    high: float
    against_base: Interval
    confidence: float
    rounds: int
    resampled: Literal["unit", "file"]
    num_units: int
    num_files: int
    num_bytes: int
    num_better: int
    """Of the resampled units or files, those on which the candidate needs fewer bits than the reference."""
    by_language: dict[str, dict[str, float]]
    """Bits per byte by model, by language."""
    num_old_units: int = 0
    """Units that the incumbent was judged on, too, when it was the candidate."""
    old_regression: float = math.nan
    """Relative rise of the bits that these need, candidate against incumbent; NaN without any."""

    def summary(self) -> str:
        """Return one line for people."""
        if math.isnan(self.delta):
            return f"{self.verdict}: {self.reason}"
        bits = ", ".join(f"{model} {value:.4f}" for model, value in self.bits_per_byte.items())
        num = self.num_units if self.resampled == "unit" else self.num_files
        return (
            f"{self.verdict}: {self.reason}. Bits per byte: {bits}; candidate - {self.reference} {self.delta:+.4f}, "
            f"{self.confidence:.0%} interval {self.low:+.4f} to {self.high:+.4f}{self._said_of_base()}"
            f"{self._said_of_old()}; better on {self.num_better} of {num} {self.resampled}s"
        )

    def as_inputs(self) -> dict[str, Any]:
        """Return everything as JSON values; what is not finite as None."""
        found: dict[str, Any] = _finite(asdict(self))
        return found

    def _said_of_old(self) -> str:
        return "" if math.isnan(self.old_regression) else f"; on code of earlier rounds {self.old_regression:+.2%}"

    def _said_of_base(self) -> str:
        if self.reference == BASE:
            return ""
        base = self.against_base
        return f" (candidate - base {base.delta:+.4f}, {base.low:+.4f} to {base.high:+.4f})"


def judge(
    items: Sequence[ItemBits],
    *,
    confidence: float,
    rounds: int,
    seed: int,
    old_units: Collection[str] = (),
    max_regression: float = math.inf,
) -> Gate:
    """Compare the candidate with the incumbent, or with the base where there is none.

    Promoted only if the whole interval of the difference lies below zero, rejected if it lies above; rejected too if
    the candidate is worse than the base beyond the interval, whatever the incumbent does. The difference is one of
    ratios of sums (bits over bytes), the interval that of a paired percentile bootstrap over units, or over files if
    there are fewer than MIN_UNITS units. With so few of them that a unanimous sign test could not reach the confidence
    either, nothing is promoted. Nor is a candidate that needs more than `max_regression` more bits than the incumbent,
    as a share, on those of `old_units`: what it gains on new code must not be paid with earlier code.
    """
    items = [item for item in items if item.num_bytes > 0]
    if not items:
        return _empty(confidence, rounds)
    reference = INCUMBENT if all(INCUMBENT in item.bits for item in items) else BASE
    resampled: Literal["unit", "file"] = "unit" if len({item.unit for item in items}) >= MIN_UNITS else "file"
    sums = _sum_groups(items, sorted({BASE, reference, CANDIDATE}), resampled)
    measured = {
        name: measure_interval(
            sums[CANDIDATE] - sums[name], sums["bytes"], confidence=confidence, rounds=rounds, seed=seed
        )
        for name in {BASE, reference}
    }
    verdict, reason = _decide(sums, measured, reference, min_groups(confidence))
    old = [item for item in items if item.unit in set(old_units)] if reference == INCUMBENT else []
    old_regression = _regression(old)
    if verdict == "promote" and old_regression > max_regression:
        verdict, reason = "hold", "old_code_regressed"
    against = measured[reference]
    return Gate(
        verdict=verdict,
        reason=reason,
        reference=reference,
        bits_per_byte=_bits_per_byte(items),
        delta=against.delta,
        low=against.low,
        high=against.high,
        against_base=measured[BASE],
        confidence=confidence,
        rounds=rounds,
        resampled=resampled,
        num_units=len({item.unit for item in items}),
        num_files=len(items),
        num_bytes=sum(item.num_bytes for item in items),
        num_better=int((sums[CANDIDATE] < sums[reference]).sum()),
        by_language={
            language: _bits_per_byte([item for item in items if item.language == language])
            for language in sorted({item.language for item in items})
        },
        num_old_units=len({item.unit for item in old}),
        old_regression=old_regression,
    )


def measure_interval(differences: Array, num_bytes: Array, *, confidence: float, rounds: int, seed: int) -> Interval:
    """Return the difference of sums per byte and its percentile bootstrap interval.

    `differences` and `num_bytes` are [groups]: the difference in bits, and the bytes, of each unit or file. The same
    seed draws the same resamplings.
    """
    if not np.isfinite(differences).all():
        return Interval(math.nan, math.nan, math.nan)
    rng, num_groups = np.random.default_rng(seed), len(differences)
    ratios = []
    for start in range(0, rounds, max(1, _CELLS // num_groups)):
        num_rounds = min(max(1, _CELLS // num_groups), rounds - start)
        counts = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=num_rounds)
        ratios.append((counts @ differences) / (counts @ num_bytes))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(ratios), [tail, 1 - tail])
    return Interval(float(differences.sum() / num_bytes.sum()), float(low), float(high))


def _regression(items: Sequence[ItemBits]) -> float:
    """Return the relative rise of the bits of these items, candidate against incumbent; NaN without any bits."""
    before = sum(item.bits[INCUMBENT] for item in items)
    return sum(item.bits[CANDIDATE] for item in items) / before - 1 if before else math.nan


def min_groups(confidence: float) -> int:
    """Return how many units or files, all agreeing, a two-sided sign test needs to reach a confidence."""
    return math.ceil(1 + math.log2(1 / (1 - confidence)))


def _decide(
    sums: dict[str, Array], measured: dict[str, Interval], reference: str, num_needed: int
) -> tuple[Verdict, str]:
    if not np.isfinite(sums[CANDIDATE]).all():
        return "reject", "not_finite"
    if not all(np.isfinite(sums[name]).all() for name in measured):
        return "hold", "reference_not_finite"
    if measured[reference].low > 0:
        return "reject", f"worse_than_{reference}"
    if measured[BASE].low > 0:
        return "reject", "worse_than_base"
    if len(sums["bytes"]) < num_needed:
        return "hold", "too_few_held_out_files"
    if measured[reference].high < 0:
        return "promote", f"better_than_{reference}"
    return "hold", "interval_contains_zero"


def _sum_groups(items: Sequence[ItemBits], models: Sequence[str], resampled: str) -> dict[str, Array]:
    """Return bits by model, and bytes, of each unit or file; each [groups]."""
    keys = [item.unit for item in items] if resampled == "unit" else list(range(len(items)))
    _, groups = np.unique(keys, return_inverse=True)
    values = {model: [item.bits[model] for item in items] for model in models}
    values["bytes"] = [float(item.num_bytes) for item in items]
    return {name: np.bincount(groups, weights=column).astype(np.float64) for name, column in values.items()}


def _bits_per_byte(items: Sequence[ItemBits]) -> dict[str, float]:
    num_bytes = sum(item.num_bytes for item in items)
    models = [model for model in (BASE, INCUMBENT, CANDIDATE) if all(model in item.bits for item in items)]
    found = {model: sum(item.bits[model] for item in items) / num_bytes for model in models}
    return {model: value for model, value in found.items() if math.isfinite(value)}


def _empty(confidence: float, rounds: int) -> Gate:
    nothing = Interval(math.nan, math.nan, math.nan)
    return Gate(
        verdict="hold",
        reason="no_held_out_files",
        reference=BASE,
        bits_per_byte={},
        delta=math.nan,
        low=math.nan,
        high=math.nan,
        against_base=nothing,
        confidence=confidence,
        rounds=rounds,
        resampled="file",
        num_units=0,
        num_files=0,
        num_bytes=0,
        num_better=0,
        by_language={},
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
