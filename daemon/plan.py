"""Forecast before a run: rows, tokens, steps, evaluations, memory, disk, hours, and whether it can work. Pure."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from daemon.config import DaemonSettings
from daemon.fitting import Fit, describe_misfit, find_fit, find_smallest, likely_attention
from daemon.memory import Memory, usable_bytes
from daemon.shapes import Shape

MIN_EVALUATIONS = 8
# Where nothing was measured: characters of code per token (with Qwen's vocabulary 3.7 in Go, 3.8 in Python),
# characters of a source file, tokens of the two frames.
CHARS_PER_TOKEN, CHARS_PER_ROW = 3.8, 6000
_CHAT_TOKENS, _FIM_TOKENS = 56, 4
# Samples fill 0.91 of sequences of 256 tokens, and 0.99 of long ones (measured on Python's standard library).
_SHORT_SEQUENCE, _SHORT_DENSITY, _DENSITY = 1024, 0.91, 0.98
# Operations per second where no run was measured: half of the dense bf16 peak of a card of that size; two cores.
_CARDS = {16: 49e12, 24: 82e12, 32: 105e12, 80: 495e12, 141: 495e12}
_CPU = 100e9
_CHECKPOINT_BYTES, _NUM_CHECKPOINTS, _VERSION_BYTES = 10, 3, 4
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What is known before a run. None: not known."""

    num_rows: int
    """Eligible pending rows, and their characters."""
    num_chars: int
    test_units: int
    test_chars: int
    validation_units: int
    shape: Shape | None
    device: Literal["cpu", "cuda"]
    memory_bytes: int
    """Of the device; for a profile of a card that is not here, of that card."""
    disk_free_bytes: int | None = None
    chars_per_token: float | None = None
    """Measured with the line's tokenizer."""
    tokens_per_s: float | None = None
    """Of the line's last run on this machine."""
    has_incumbent: bool = False
    needs_base: bool = False
    """Run 0 comes first: the base is to be made here."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A forecast of the next adapter run."""

    rows: int
    chars: int
    tokens: int
    """Trained tokens of all epochs: frames and replay counted, padding not."""
    steps: int
    evaluations: int
    """Evaluations on the validation split that will really happen; early stopping may end them sooner."""
    peak_bytes: int
    disk_bytes: int
    hours: float
    memory: Memory | None
    memory_limit_bytes: int
    micro_batch: int
    """Sequences per forward pass, passes per step on each device, and recomputed layers: the fastest way that fits."""
    accumulation: int
    num_devices: int
    checkpointed_layers: int | None
    num_layers: int | None
    seconds: dict[str, float]
    """Of the parts: base, train, evaluate."""
    fits: bool
    problems: list[str] = field(default_factory=list)
    """Why the run cannot work, each with the value and what to set."""
    assumptions: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        found = asdict(self)
        found["hours"] = round(self.hours, 4)
        return found


@dataclass(frozen=True, slots=True)
class _Amount:
    """What a number of rows comes to."""

    rows: int
    chars: int
    tokens: int
    steps: int


def plan(facts: PlanFacts, settings: DaemonSettings) -> Plan:
    """Forecast the next adapter run of a line."""
    assumptions: list[str] = []
    amount = _measure(_next_rows(facts, settings, assumptions), facts, settings, assumptions)
    shape, problems = facts.shape, _check_data(amount, facts, settings)
    limit = usable_bytes(facts.memory_bytes, facts.device, settings)
    fit = None if shape is None else _choose(shape, facts, settings, limit)
    fits = fit is not None and fit.memory.total <= limit
    if shape is None:
        problems.append(_unknown_base(settings))
    elif not fits:
        problems.append(describe_misfit(shape, settings, facts.device, facts.memory_bytes))
    seconds = {} if shape is None or fit is None else _predict_seconds(shape, fit, amount, facts, settings, assumptions)
    disk = _disk_bytes(shape, amount, settings)
    if facts.disk_free_bytes is not None and disk > facts.disk_free_bytes:
        problems.append(
            f"needs {disk / _GIB:.1f} GiB of disk, {facts.disk_free_bytes / _GIB:.1f} are free: make room, or set "
            "CODELUPE_HOME to a larger file system"
        )
    return Plan(
        rows=amount.rows,
        chars=amount.chars,
        tokens=amount.tokens,
        steps=amount.steps,
        evaluations=count_evaluations(amount.steps, settings.eval_interval_steps),
        peak_bytes=fit.memory.total if fit else 0,
        disk_bytes=disk,
        hours=sum(seconds.values()) / 3600,
        memory=fit.memory if fit else None,
        memory_limit_bytes=limit,
        micro_batch=fit.micro_batch if fit else settings.micro_batch,
        accumulation=fit.accumulation if fit else settings.accumulation,
        num_devices=settings.num_devices,
        checkpointed_layers=fit.checkpointed_layers if fit else None,
        num_layers=shape.num_layers if shape else None,
        seconds=seconds,
        fits=fits,
        problems=problems,
        assumptions=assumptions,
    )


def count_evaluations(steps: int, eval_interval_steps: int) -> int:
    """Return how many evaluations a run of so many steps makes, the one before its first step included."""
    return 1 + math.ceil(steps / max(1, min(eval_interval_steps, steps // MIN_EVALUATIONS)))


def _next_rows(facts: PlanFacts, settings: DaemonSettings, assumptions: list[str]) -> tuple[float, float]:
    """Return rows and characters of the next run: what is pending, or the threshold where that is not reached."""
    rows, chars = float(facts.num_rows), float(facts.num_chars)
    if facts.needs_base:
        taken = min(settings.base_share * chars, settings.base_max_chars)
        rows, chars = rows * (1 - taken / max(1.0, chars)), chars - taken
        assumptions.append(f"run 0 takes {taken:,.0f} characters for the base first")
    mean = chars / rows if rows else CHARS_PER_ROW
    if rows < settings.threshold_rows:
        assumptions.append(f"{rows:,.0f} rows are pending; forecast for the threshold of {settings.threshold_rows:,}")
        rows = settings.threshold_rows
    rows = min(rows, settings.max_rows, (settings.max_run_chars or math.inf) / mean)
    return rows, rows * mean


def _measure(
    amount: tuple[float, float], facts: PlanFacts, settings: DaemonSettings, assumptions: list[str]
) -> _Amount:
    rows, chars = amount
    per_token = facts.chars_per_token or CHARS_PER_TOKEN
    if facts.chars_per_token is None:
        assumptions.append(f"{CHARS_PER_TOKEN} characters per token (no tokenizer of this line to measure with)")
    frame = settings.fim_share * _FIM_TOKENS + (1 - settings.fim_share) * _CHAT_TOKENS
    piece = max(1.0, min(settings.max_chars, (settings.sequence_tokens - frame) * per_token))
    repeated = 1 + (settings.replay_share if facts.has_incumbent else 0)
    # The last piece of a file is half a piece on average.
    samples = repeated * (chars / piece + rows / 2)
    tokens = repeated * chars / per_token + samples * frame
    density = _SHORT_DENSITY if settings.sequence_tokens < _SHORT_SEQUENCE else _DENSITY
    sequences = math.ceil(tokens / density / settings.sequence_tokens) * settings.epochs
    steps = math.ceil(sequences / (settings.micro_batch * settings.accumulation))
    return _Amount(round(rows), round(chars), round(tokens * settings.epochs), steps)


def _check_data(amount: _Amount, facts: PlanFacts, settings: DaemonSettings) -> list[str]:
    problems = []
    if amount.steps < MIN_EVALUATIONS:
        rows = math.ceil(amount.rows * MIN_EVALUATIONS / max(1, amount.steps))
        problems.append(
            f"{amount.rows:,} rows make {amount.steps} steps, too few for {MIN_EVALUATIONS} evaluations: set "
            f"CODELUPE_THRESHOLD_ROWS to about {rows:,}, or a smaller CODELUPE_ACCUMULATION "
            f"(now {settings.accumulation}) or CODELUPE_MICRO_BATCH (now {settings.micro_batch})"
        )
    if facts.test_units < settings.min_test_units:
        problems.append(
            f"{facts.test_units} held-out test units, {settings.min_test_units} are needed to judge a candidate: "
            "ingest more sources, or set a smaller CODELUPE_TRAIN_SHARE before ingesting"
        )
    if facts.validation_units == 0:
        problems.append(
            "no validation units, so training could not stop early: ingest more sources, or set a larger "
            "CODELUPE_VALIDATION_SHARE before ingesting"
        )
    return problems


def _unknown_base(settings: DaemonSettings) -> str:
    return (
        f"the size of {settings.base_model!r} is not known: set CODELUPE_BASE_MODEL to a Qwen2.5 model or to a folder "
        "with a config.json of the Qwen2 family"
    )


def _choose(shape: Shape, facts: PlanFacts, settings: DaemonSettings, limit: int) -> Fit:
    attention = likely_attention(settings, facts.device)
    found = find_fit(shape, settings, facts.device, attention, limit)
    return found or find_smallest(shape, settings, facts.device, attention)


def _predict_seconds(
    shape: Shape, fit: Fit, amount: _Amount, facts: PlanFacts, settings: DaemonSettings, assumptions: list[str]
) -> dict[str, float]:
    document, trained = settings.sequence_tokens / 2, fit.flops
    rate, cards = facts.tokens_per_s, settings.num_devices if facts.device == "cuda" else 1
    if rate is None:
        card = min(_CARDS, key=lambda size: abs(size - facts.memory_bytes / _GIB))
        rate = (cards * _CARDS[card] if facts.device == "cuda" else _CPU) / trained
        assumptions.append(f"{rate:,.0f} tokens/s (no run of this line was measured on this machine)")
    per_token = facts.chars_per_token or CHARS_PER_TOKEN
    test_tokens = min(facts.test_chars, settings.max_test_chars) / per_token
    num_models = 3 if facts.has_incumbent else 2
    flops = rate * trained / cards  # bases are made, and candidates judged, on one
    base_tokens = min(settings.base_share * facts.num_chars, settings.base_max_chars) / per_token
    return {
        "base": base_tokens * shape.pretrain_flops(document) / flops if facts.needs_base else 0.0,
        "train": amount.tokens / rate * (1 + settings.eval_share),
        "evaluate": num_models * test_tokens * shape.forward_flops(document) / flops,
    }


def _disk_bytes(shape: Shape | None, amount: _Amount, settings: DaemonSettings) -> int:
    """Job files, the checkpoints that exist at once, and the version; not the base model."""
    adapter = 0 if shape is None else shape.num_lora(settings.adapter_rank)
    return round(1.2 * amount.chars) + adapter * (_CHECKPOINT_BYTES * _NUM_CHECKPOINTS + _VERSION_BYTES)
