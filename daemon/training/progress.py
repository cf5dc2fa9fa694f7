"""How a run is to train, and how far it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from daemon.fitting import Fit
from daemon.job import SMALLER

PROGRESS = "progress.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train, as far as it is not in the data."""

    num_steps: int
    micro_batch: int
    accumulation: int
    learning_rate: float
    warmup_steps: int
    max_grad_norm: float
    weight_decay: float
    optimizer: str
    adam_beta2: float
    checkpoint_interval_s: float
    eval_every: int
    patience: int | None
    """None: the run goes to its end and keeps its last weights, whatever the evaluations say."""
    min_improvement: float
    seed: int
    device: str
    dtype: torch.dtype
    flat: bool
    fit: Fit | None = None
    """How the passes are made, and what they take; None: of a line's own base, whose layers keep everything."""
    num_out_of_memory: int = 0
    """Times that memory ran out so far."""

    def ways(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of how the passes are made."""
        return {
            "micro_batch": self.micro_batch,
            "checkpointed_layers": None if self.fit is None else self.fit.checkpointed_layers,
            "num_out_of_memory": self.num_out_of_memory,
        }


class Progress(BaseModel):
    """How far a run is, as its checkpoint keeps it."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    loss: float | None = None
    last_losses: list[float] = []
    """Training loss of the last steps, at most SMOOTHED."""
    first_loss: float | None = None
    """Mean training loss of the first FIRST steps."""
    num_skipped: int = 0
    """Steps that changed no weight, as their gradients overflowed in float16; and the last ones in a row."""
    skipped_in_a_row: int = 0
    num_evals: int = 0
    last_eval_step: int | None = None
    validation_loss: float | None = None
    """Of the last evaluation."""
    validation_bits_per_byte: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    last_eval_losses: list[float] = []
    """Validation losses of the last evaluations, at most SMOOTHED_EVALS."""
    reference_loss: float | None = None
    """Smoothed validation loss at the last improvement that counted."""
    evals_without_improvement: int = 0
    stopped_early: bool = False
    micro_batch: int = 0
    checkpointed_layers: int | None = None
    num_out_of_memory: int = 0
    place: dict[str, int] | None = None
    """Where in a stream the next step begins (`stream.Place`)."""


def read_smaller(job_dir: Path) -> Progress | None:
    """Return the way to go on that SMALLER says; None: memory never made the processes begin anew."""
    file = job_dir / SMALLER
    return Progress.model_validate_json(file.read_text()) if file.exists() else None
