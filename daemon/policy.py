"""Whether to train now. Pure: facts in, verdict and reason out; the tick records both and acts."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

Verdict = Literal["train", "make_base", "wait"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decision rests on, at one moment."""

    paused: bool
    requested: bool
    """The operator asked for a run now."""
    needs_base: bool
    """The line makes its own base model and has none yet."""
    num_fresh: int
    """Eligible new rows, counted up to what is needed."""
    threshold: int
    num_test_units: int | None
    """Held-out units the gate could judge on; None: not counted, as the rows do not suffice anyway."""
    min_test_units: int
    sources_unfinished: bool
    """Whether sources are still queued or being read."""
    retry_in_s: float
    """Seconds of back-off left after a failed run."""
    num_suspects: int = 0
    """Rows among which the one is that makes runs fail: half of them are tried before anything else is trained on."""

    def as_inputs(self) -> dict[str, Any]:
        """Return the facts as the decision's recorded inputs."""
        return asdict(self)

    def counted(self, num_fresh: int, num_test_units: int | None) -> Self:
        """Return these facts with the rows and units counted."""
        return replace(self, num_fresh=num_fresh, num_test_units=num_test_units)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and the one reason for it."""

    verdict: Verdict
    reason: str
    missing: str = ""
    """What is missing, in words, where the reason alone does not say how much."""


def num_needed(facts: Facts) -> int:
    """Return how many fresh rows open a run: the threshold, twice that for a base, one when asked for."""
    if facts.needs_base:
        return 2 * facts.threshold
    return 1 if facts.requested else facts.threshold


def decide(facts: Facts) -> Decision:
    """Decide; the first rule that applies wins, so that the reason names what to change first."""
    if facts.paused:
        return Decision("wait", "paused")
    if facts.retry_in_s > 0 and not facts.requested:
        return Decision("wait", "backing_off")
    if facts.num_suspects > 0:
        return Decision("train", "bisecting")
    if facts.needs_base and facts.sources_unfinished:
        # The base and its tokenizer see the first sources as a whole, not whatever came first.
        return Decision("wait", "sources_unfinished")
    if facts.num_fresh < num_needed(facts):
        return Decision("wait", "too_few_rows")
    if (num_units := facts.num_test_units or 0) < facts.min_test_units:
        num_missing = facts.min_test_units - num_units
        units = "unit is" if num_missing == 1 else "units are"
        missing = f"{num_missing} held-out {units} missing: {num_units} of {facts.min_test_units}"
        return Decision("wait", "too_few_held_out", missing)
    if facts.needs_base:
        return Decision("make_base", "base_missing")
    return Decision("train", "requested" if facts.requested else "threshold_reached")
