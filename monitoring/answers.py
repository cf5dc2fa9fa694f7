"""What a daemon says at /status and /v1/decisions, as the monitor reads it: checked, and safe for a terminal."""

import datetime as dt
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

_MAX_WORDS: Final = 300
_MAX_S: Final = 1e10


def printable(text: str) -> str:
    """Return a text that steers no terminal: whatever is not printed is shown as a replacement character."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:_MAX_WORDS])


Words = Annotated[str, AfterValidator(printable)]
Figure = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=-_MAX_S, le=_MAX_S)]
Time = Annotated[
    AwareDatetime, Field(gt=dt.datetime(1970, 1, 2, tzinfo=dt.UTC), lt=dt.datetime(9000, 1, 1, tzinfo=dt.UTC))
]
Count = Annotated[int, Field(ge=0, le=10**15)]


class _Answer(BaseModel):
    """A part of an answer; what the monitor does not show is not looked at."""

    model_config = ConfigDict(frozen=True)


class Training(_Answer):
    """The child's last step; empty while there is none."""

    phase: Words | None = None
    step: Count | None = None
    total: Count | None = None
    epoch: Figure | None = None
    loss: Figure | None = None
    smoothed_loss: Figure | None = None
    eval_loss: Figure | None = None
    lr: Figure | None = None
    tokens_per_s: Figure | None = None
    eta_s: Seconds | None = None


class Run(_Answer):
    """The open run."""

    number: Count
    kind: Words
    state: Words
    created_at: Time | None = None


class Curve(_Answer):
    """The loss of the open run, by step."""

    train: list[tuple[int, Figure]] = []


class Backlog(_Answer):
    """What the last decision counted."""

    num_fresh: Count | None = None


class Said(_Answer):
    """What the last tick decided."""

    verdict: Words
    reason: Words


class Decision(Said):
    """A decision with how often and when it was taken."""

    repeated: Count = 1
    last_at: Time | None = None


class Decisions(_Answer):
    """The newest decisions."""

    decisions: list[Decision]


class Version(_Answer):
    """A version of the line."""

    number: Count
    bits_per_byte: Figure | None = None
    created_at: Time | None = None


class Gpu(_Answer):
    """A card of the service's machine; what it does not tell is None."""

    gpu: Words
    name: Words = ""
    up: bool = True
    memory_bytes: Figure | None = None
    memory_used_bytes: Figure | None = None
    utilization_ratio: Figure | None = None
    temperature_celsius: Figure | None = None
    power_watts: Figure | None = None
    power_limit_watts: Figure | None = None


class Result(_Answer):
    """How the last run ended."""

    state: Words
    summary: Words


class Status(_Answer):
    """The answer of a daemon's /status; ingest's has no line."""

    line: Words
    profile: Words
    device: Words
    paused: bool = False
    decision: Said | None = None
    backlog: Backlog | None = None
    needed_rows: Count | None = None
    threshold_eta_s: Seconds | None = None
    run: Run | None = None
    training: Training = Training()
    curve: Curve | None = None
    current_version: Count | None = None
    versions: list[Version] = []
    decisions: list[Decision] = []
    last_result: Result | None = None
    gpus: list[Gpu] = []
