"""Whether to train now. Pure: facts in, verdict and reason out; the tick records both and acts."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["train", "consolidate", "make_base", "wait"]


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
    misfit: str = ""
    """Why no run can fit the memory of the device, and what to set, in words; empty: one may."""
    num_suspects: int = 0
    """Rows among which the one is that makes runs fail: half of them are tried before anything else is trained on."""
    local_time: str = ""
    """Day and time where the windows are, in words."""
    in_window: bool = True
    """Whether runs may begin at this hour."""
    window_opens: str = ""
    """When they may next, in words."""
    quiet: bool = False
    """Whether nothing may train at this hour, not even what was asked for."""
    oldest_hours: float | None = None
    """Hours that the oldest new row has waited; None: not looked at."""
    max_age_hours: float | None = None
    max_age_rows: int = 1
    watched_files: int = 0
    """Changed files of the watched repository that has most of them, since the last run that did not fail."""
    watch_files: int | None = None
    watched_commits: int = 0
    """Commits in which that was seen, of the watched repository that has most of them."""
    watch_commits: int | None = None
    watch_releases: bool = False
    """Whether a new release of a watched repository starts a run."""
    new_releases: str = ""
    """Release tags of watched repositories first seen since the last run that did not fail; the newest few."""
    unknown_watched: str = ""
    """Watched repositories that ingest has never heard of."""
    num_rounds: int = 0
    """Promoted rounds since the line's adapter was last tried to be made from the base."""
    consolidate_every: int = 0
    regression: float | None = None
    """Relative rise of the held-out bits of earlier rounds' code meanwhile; None: not known, or not looked at."""
    consolidate_regression: float | None = None
    held_for_old_code: bool = False
    """Whether a round since then was held because it would have cost earlier code too much."""

    def as_inputs(self) -> dict[str, Any]:
        """Return the facts as the decision's recorded inputs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do and the one reason for it."""

    verdict: Verdict
    reason: str
    missing: str = ""
    """What is missing, in words, where the reason alone does not say how much."""


def num_needed(facts: Facts) -> int:
    """Return how many fresh rows open a run: the threshold, twice that for a base, fewer for another trigger."""
    if facts.needs_base:
        return 2 * facts.threshold
    return {"threshold_reached": facts.threshold, "rows_aged": facts.max_age_rows}.get(_trigger(facts), 1)


def _trigger(facts: Facts) -> str:
    """Return what asks for a run, given rows enough for it: the threshold where nothing else does."""
    if facts.requested:
        return "requested"
    if facts.num_fresh < facts.threshold:
        if _is_reached(facts.oldest_hours or 0.0, facts.max_age_hours) and facts.num_fresh >= facts.max_age_rows:
            return "rows_aged"
        if facts.watch_releases and facts.new_releases:
            return "watched_release"
        if _is_reached(facts.watched_files, facts.watch_files):
            return "watched_files"
        if _is_reached(facts.watched_commits, facts.watch_commits):
            return "watched_commits"
    return "threshold_reached"


def _is_reached(value: float, limit: float | None) -> bool:
    return limit is not None and value >= limit


def decide(facts: Facts) -> Decision:
    """Decide; what there is to train on comes first, so that a wait for the hour says that all the rest is there."""
    decision = _decide_at_any_hour(facts)
    if decision.verdict == "wait":
        return decision
    if facts.quiet:
        return Decision("wait", "quiet_hours")
    if not facts.in_window and not facts.requested:
        return Decision("wait", "outside_window", f"runs may begin from {facts.window_opens}")
    return decision


def _decide_at_any_hour(facts: Facts) -> Decision:
    """Decide; the first rule that applies wins, so that the reason names what to change first."""
    if facts.paused:
        return Decision("wait", "paused")
    if facts.misfit:
        # Before what rows and time would change: this takes another setting, whatever comes.
        return Decision("wait", "does_not_fit")
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
    trigger = _trigger(facts)
    # What an operator asks for, or a few rows do, is an ordinary round: a consolidation takes far longer.
    if trigger == "threshold_reached" and (why := _consolidation(facts)):
        return Decision("consolidate", why)
    return Decision("train", trigger)


def _consolidation(facts: Facts) -> str:
    """Return why the next run should begin at the base again; empty: it should go on."""
    if not facts.consolidate_every:
        return ""
    if facts.num_rounds >= facts.consolidate_every:
        return "rounds_reached"
    regressed = _is_reached(facts.regression or 0.0, facts.consolidate_regression)
    return "old_code_regressed" if regressed or facts.held_for_old_code else ""
