"""What the control half hands to its child, and what comes back: files in one job directory.

job.json  members.jsonl  validation.jsonl  test.jsonl       written by the control half before the child starts
base/  adapter/  checkpoints/  smaller.json  child.log      the child's
result.json  evaluation.json  error.json                    the child's answers, each written by rename
"""

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from daemon.config import TrainingSettings

JOB, MEMBERS, VALIDATION, TEST = "job.json", "members.jsonl", "validation.jsonl", "test.jsonl"
SMALLER = "smaller.json"
"""The smaller way of several processes: decided on by the one whose memory ran out, for all when they begin anew."""
DONE, FAILED, STOPPED = 0, 1, 3


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Recipe(_Document):
    """What only a training of all weights is told (verb `full`)."""

    tokens: int
    """To be learned, in whole steps."""
    architecture: Literal["qwen2", "gpt2"] | None
    """Of the model that is made from scratch, of the settings' size; none: the base's weights are all trained on."""
    held_out: float = 0.01
    """Share of the text, in whole units, that is measured on and not learned."""


class RateRange(_Document):
    """What only a learning-rate range test is told (verb `range_test`)."""

    steps: int
    low: float
    high: float


class Job(_Document):
    """One run, as its child needs it. Paths are absolute."""

    format_version: Literal[1] = 1
    line: str
    run: int
    uuid: str = ""
    """Identity of the run: what lies in the folder from a run of another database is not taken for its own."""
    attempt: int = 0
    """How often a child has been started for it, this one included."""
    tick: str | None = None
    """The tick that starts the child."""
    decided_by: str | None = None
    """The tick that decided on the run."""
    kind: Literal["base", "adapter"]
    seed: int
    settings: TrainingSettings
    device: Literal["cpu", "cuda"]
    base: str
    """Folder of the base model, or its name on the hub. For a run of kind `base`: the folder it is to make."""
    base_revision: str | None = None
    base_cache: Path | None = None
    """Where the quantised base is kept between runs; unset: nowhere."""
    claimed_at: datetime | None = None
    """When the run was claimed; the time to its first step counts from there."""
    incumbent: Path | None = None
    """Adapter in service, which this run is judged against."""
    fresh: bool = False
    """Whether it begins with a new adapter all the same: a consolidation."""
    recipe: Recipe | None = None
    rates: RateRange | None = None

    @property
    def continued(self) -> Path | None:
        """Adapter whose weights this run goes on from; None: it makes a new one."""
        return None if self.fresh else self.incumbent


class Item(_Document):
    """A line of members.jsonl, validation.jsonl or test.jsonl."""

    ordinal: int
    item_id: int
    role: str
    content: str
    sha256: str
    language: str
    path: str
    repository: str
    unit: str


class Result(_Document):
    """result.json: what `pretrain` and `train` did."""

    steps: int
    steps_planned: int
    tokens: int
    """Real tokens of all steps, padding not counted."""
    completion_tokens: int
    seconds: float
    tokens_per_s: float
    start_s: dict[str, float] = {}
    """Seconds from the claim to each phase, and to the first optimizer step (`first_step`)."""
    num_samples: int
    packing_density: float
    final_loss: float
    best_eval_loss: float | None
    best_step: int | None
    num_evals: int
    validation_loss: float | None = None
    """Nats per held-out token at the last evaluation, and bits per byte: of a base, those of what is saved."""
    validation_bits_per_byte: float | None = None
    stopped_early: bool
    peak_bytes: int
    """Peak of resident memory on a CPU, of allocated device memory on a GPU."""
    trainable_parameters: int
    base_revision: str | None
    tokenizer_digest: str
    attention: str
    kernels: str = "torch"
    """Whose kernels computed norms, rotary embedding and silu(gate)·up: those of `fused_kernels`, or plain torch's."""
    micro_batch: int = 0
    """Sequences per forward pass, and layers that were recomputed, at the end of the run."""
    checkpointed_layers: int = 0
    planned_bytes: int = 0
    """What the planner foresaw as the peak; 0: nothing was planned."""
    num_skipped: int = 0
    """Steps that changed no weight, as their gradients overflowed in float16."""
    num_out_of_memory: int = 0
    """Times that memory ran out and the run went on in a smaller way."""
    digests: dict[str, str]
    """SHA-256 by file of what was made (`adapter/…` or `base/…`)."""
    versions: dict[str, str]
    """Library versions."""


class ItemBits(_Document):
    """One held-out item under each model: −Σ log2 p over its completion tokens, and their UTF-8 bytes."""

    item_id: int
    unit: str
    language: str
    num_bytes: int
    num_tokens: int
    bits: dict[str, float]
    """By model: base, incumbent (where there is one), candidate."""


class EvaluationResult(_Document):
    """evaluation.json: the test split under base, incumbent and candidate."""

    items: list[ItemBits]
    seconds: float


class Failure(_Document):
    """error.json: why the child gave up."""

    reason: Literal["nan", "loss_spike", "out_of_memory", "data", "base_missing", "disk", "device", "exception"]
    message: str
    data_caused: bool
    traceback: str = ""


Event = dict[str, Any]
