"""How well the process is: a pure function from facts to a status with reasons.

`ok` and `degraded` answer 200 (a restart would not help), `down` 503 (it would). An outage of the database degrades; it
is /ready that turns 503 then (I9).
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

MAX_FAILURES_IN_A_ROW = 3

Status = Literal["ok", "degraded", "down"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the caller knows about its own process."""

    database_up: bool
    silent_s: float
    """Seconds since the loop's last sign of life; 0 before the first, while it waits for its database."""
    max_silent_s: float
    """Silence that means that the loop is stuck: a few intervals, for a loop that reports while it supervises too."""
    started: bool = True
    """Whether the loop has come round once."""
    trains: bool = True
    """Whether this process publishes versions; ingest does not."""
    current_version: int | None = None
    version_verified: bool = False
    """Whether the current version is on disk and its files match its manifest."""
    last_trained_id: int | None = None
    failures_in_a_row: int = 0
    rows_unaccounted: int = 0
    paused: bool = False
    lease_held: bool = True
    full_disk: str = ""
    """The folder that the last work found no space in."""
    step_failing: bool = False
    """Whether the last step broke off with an error and waits for another try."""
    does_not_fit: bool = False
    """Whether no run starts because none can fit the memory of the device."""
    settings_refused: bool = False
    """Whether what was changed of the settings at run time does not fit the configuration, and is not in force."""


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of /health. Reasons with status `ok` are remarks."""

    status: Status
    reasons: list[str]
    model_loaded: bool
    last_trained_id: int | None
    current_version: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the answer as a JSON object."""
        return asdict(self)


def assess(facts: Facts) -> Health:
    """Return the worst status that a fact asks for, with every reason, the gravest first."""
    found = [(status, reason) for holds, status, reason in _rules(facts) if holds]
    statuses = [status for status, _ in found]
    return Health(
        status="down" if "down" in statuses else "degraded" if "degraded" in statuses else "ok",
        reasons=[reason for _, reason in found],
        model_loaded=facts.current_version is not None and facts.version_verified,
        last_trained_id=facts.last_trained_id,
        current_version=facts.current_version,
    )


def ready(facts: Facts) -> tuple[bool, list[str]]:
    """Return whether the process can do its work now, and why not."""
    reasons = []
    if not facts.database_up:
        reasons.append("database_away")
    if facts.silent_s > facts.max_silent_s:
        reasons.append("loop_silent")
    if not facts.started:
        reasons.append("starting")
    return not reasons, reasons


def _rules(facts: Facts) -> list[tuple[bool, Status, str]]:
    has_version = facts.current_version is not None
    return [
        (facts.silent_s > facts.max_silent_s, "down", "loop_silent"),
        (not facts.database_up, "degraded", "database_away"),
        (facts.full_disk != "", "degraded", f"disk_full: {facts.full_disk}"),
        (facts.step_failing, "degraded", "step_failing"),
        (facts.settings_refused, "degraded", "settings_refused"),
        (facts.does_not_fit, "degraded", "does_not_fit"),
        (facts.rows_unaccounted > 0, "degraded", "rows_unaccounted"),
        (facts.trains and has_version and not facts.version_verified, "degraded", "version_unverified"),
        (facts.failures_in_a_row >= MAX_FAILURES_IN_A_ROW, "degraded", "runs_failing"),
        (not facts.started, "ok", "starting"),
        (facts.trains and not has_version, "ok", "no_version_yet"),
        (facts.paused, "ok", "paused"),
        (facts.trains and not facts.lease_held, "ok", "standby"),
    ]
