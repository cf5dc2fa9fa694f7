"""What the daemon can be told. Defaults are those of the 14B model; profiles (profiles.py) set others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from daemon.adapter_config import AdapterSettings, Section
from daemon.windows import parse_window
from monitoring.config import MonitoringSettings
from schema.config import DatabaseSettings


class SampleSettings(Section):
    """How a file becomes samples."""

    prefix_share: float = Field(0.35, gt=0, lt=1)
    """Share of a file shown as context in a continuation sample; the rest is the completion to learn."""
    fim_share: float = Field(0.5, ge=0, le=1)
    """Share of the samples that are fill-in-the-middle instead of continuation."""
    sequence_tokens: int = Field(4096, ge=64, multiple_of=64)
    """Length of one packed sequence, in tokens. A longer sample is cut at a syntax boundary."""
    max_chars: int = Field(8000, ge=256)
    """Longest piece of a file in one sample, in characters; a longer file is one row and yields several samples."""


class TrainingSettings(AdapterSettings, SampleSettings):
    """What the child needs to know to train and evaluate; travels in the job."""

    base_model: str = "Qwen/Qwen2.5-Coder-14B-Instruct"
    """Name on the hub, or a folder, of the base model. `tiny` makes its own: `local:tiny`."""
    base_revision: str | None = None
    """Commit of the base model on the hub; unset: what is there, and it is recorded."""
    quantisation: Literal["nf4", "fp8", "none"] = "nf4"
    """Storage of the frozen base: NF4 (4 bits); fp8, nearer to its own weights, for a card with the room; as it is."""
    compute_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Arithmetic of the forward and backward pass; float16 is for GPUs older than Ampere, with scaled gradients."""
    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate of a first round."""
    continued_rate_share: float = Field(0.5, gt=0, le=1)
    """Peak learning rate of a round that continues an adapter, as a share of `learning_rate`."""
    warmup_share: float = Field(0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises to its peak; it then falls along a cosine to 10 %."""
    micro_batch: int = Field(4, ge=1)
    """Most sequences per forward pass."""
    accumulation: int = Field(4, ge=1)
    """Forward passes per optimizer step."""
    epochs: int = Field(1, ge=1)
    """Passes over the claimed rows."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW (8-bit)."""
    paged_optimizer: bool = False
    """On a GPU: keep AdamW's states in pages that move to the host's memory where the GPU's is short; takes a driver
    with unified memory."""
    eval_interval_steps: int = Field(100, ge=1)
    """Most steps between two evaluations; a short run evaluates at least eight times."""
    eval_pieces: int = Field(8, ge=1)
    """Most pieces of one held-out file that the gate evaluates: many files count, not a few long ones."""
    eval_share: float = Field(0.05, gt=0, le=0.5)
    """Share of the run's computation that its evaluations may take; the validation subsample is cut to fit."""
    patience: int = Field(3, ge=1)
    """Evaluations in a row without improvement after which training stops early; the best adapter is kept."""
    min_improvement: float = Field(0.0005, ge=0)
    """Relative fall of the smoothed validation loss (median of the last three) that counts as an improvement."""
    checkpoint_interval_s: float = Field(600, gt=0)
    """Seconds between two checkpoints; more where they would take above 1 % of a run longer than an hour."""
    attention: Literal["auto", "flash", "varlen", "sdpa"] = "auto"
    """Attention kernel; auto takes the best that is there, and says which."""
    fused_kernels: Literal["torch", "liger", "compile"] = "torch"
    """Kernels of norms, rotary embedding and silu(gate)·up: torch's, Liger's (CUDA, the extra `liger`), or compiled
    ones (takes a compiler, and a minute at the start). Those that fail or give other gradients are passed over."""
    checkpointed_layers: Annotated[int, Field(ge=0)] | Literal["auto", "all"] = "auto"
    """Layers that keep their input alone and are computed again in the backward pass (all: up to 45 % more arithmetic);
    auto: as few as the memory asks for, with micro-batches of at most the size set here."""
    memory_gib: float | None = Field(None, gt=0)
    """Memory of the device that a run may plan with, in GiB; unset: all but a twentieth of a GPU's, four fifths of a
    CPU's."""
    seed: int = 42
    """Seed of sampling, shuffling and initialisation."""
    num_devices: int = Field(1, ge=1)
    """GPUs of this machine that train together, a process each (torchrun); they share the sequences of a step."""
    threads: int | None = Field(None, ge=1)
    """Threads of the training child on a CPU; unset: one per core."""
    tracker: Literal["wandb", "tensorboard", "none"] = "wandb"
    """What records the figures of a training in its job folder; tensorboard needs the extra of that name."""
    tracked_completions: int = Field(3, ge=0)
    """Held-out samples that are continued at each evaluation, for the tracker to show; 0: none."""
    wandb_project: str = "codelupe"
    """Weights & Biases project. Runs are kept offline unless WANDB_API_KEY is set."""

    hidden_size: int = Field(256, multiple_of=64)
    """`local:tiny` and `train base`: width of a base from scratch. Heads are 64 wide."""
    num_layers: int = Field(2, ge=1)
    """`local:tiny` and `train base`: layers of that base."""
    intermediate_size: int = Field(768, multiple_of=64)
    """`local:tiny` and `train base`: width of its MLP."""
    vocabulary: int = Field(4096, ge=512, multiple_of=64)
    """`local:tiny` and `train base`: entries of its byte-level BPE, special tokens included."""
    pretrain_learning_rate: float = Field(3e-3, gt=0)
    """`local:tiny` and `train base`: peak learning rate of a base from scratch."""
    full_learning_rate: float = Field(1e-5, gt=0)
    """`train base --from` only: peak learning rate where all weights of a base are trained on."""
    pretrain_weight_decay: float = Field(0.1, ge=0)
    """`train base` only: weight decay of AdamW."""
    pretrain_frame_share: float = Field(0.33, ge=0, le=1)
    """`local:tiny` only: share of the pre-training steps, the last ones, in sample frames instead of plain text."""

    @model_validator(mode="after")
    def _check_devices(self) -> Self:
        if (num := self.micro_batch * self.accumulation) % self.num_devices:
            step = f"micro_batch ({self.micro_batch}) times accumulation ({self.accumulation}) = {num}"
            fault = f"num_devices ({self.num_devices}) does not divide the sequences of a step, {step}"
            raise ValueError(f"{fault}: set CODELUPE_NUM_DEVICES to a divisor, or another CODELUPE_ACCUMULATION")
        return self


class DaemonSettings(TrainingSettings):
    """When to train, on how much, and when to publish."""

    line: str = Field("qwen", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """Name of the lineage of adapters this daemon extends. Another base model means another line."""
    check_interval_s: float = Field(300, gt=0)
    """Seconds between two counts of the new rows."""
    threshold_rows: int = Field(1000, ge=1)
    """New rows that start a run."""
    train_windows: tuple[str, ...] = ()
    """Hours in which a run may begin, such as `mon-fri 22:00-06:00, sat-sun`; unset: any. `train now` needs none."""
    quiet_hours: tuple[str, ...] = ()
    """Hours, written alike, in which nothing trains: a run that is open makes a checkpoint and waits."""
    time_zone: str = "UTC"
    """Time zone of both, by its IANA name, such as `Europe/Berlin`."""
    max_age_hours: float | None = Field(None, gt=0)
    """Hours after which new rows are trained on though they are fewer than the threshold; unset: they wait for it."""
    max_age_rows: int = Field(100, ge=1)
    """Fewest new rows that a run starts with because they are old."""
    watch: tuple[str, ...] = ()
    """Repositories (`owner/name`, address or folder, as in `ingest status`) whose releases or changes start a run."""
    watch_releases: bool = True
    """Whether a new release tag of a watched repository, such as `v1.2.0`, starts a run."""
    watch_files: int | None = Field(None, ge=1)
    """Changed files of one watched repository, since the last run that did not fail, that start a run."""
    watch_commits: int | None = Field(None, ge=1)
    """Commits at which ingest found one watched repository changed, since that run, that start a run."""
    max_owner_rows: int = Field(99, ge=1)
    """Most rows of one owner that a line ever consumes of what the crawler found, the best ones (a poisoning bound)."""
    max_rows: int = Field(100_000, ge=1)
    """Most rows of one run; the best are taken, the others stay pending."""
    max_run_chars: int | None = Field(None, ge=10_000)
    """Most characters of one run; unset: no limit."""
    min_quality: float = Field(70, ge=0, le=100)
    """Quality score below which a row is not trained on; it stays stored and pending."""
    min_chars: int = Field(50, ge=1)
    """Shortest file that is trained on, in characters."""
    replay_share: float = Field(0.15, ge=0, le=1)
    """Rows of earlier rounds that are trained again beside the new ones, as a share of the new ones."""
    consolidate_every: int = Field(8, ge=0)
    """Promoted rounds after which one trains a new adapter from the base, on rows of all rounds; 0: never."""
    consolidate_regression: float = Field(0.03, gt=0)
    """Relative rise of the held-out bits of earlier rounds' code at which that is done before its turn."""
    max_regression: float = Field(0.01, gt=0)
    """Most that one round may raise the held-out bits of earlier rounds' code, as a share; else it is held."""
    min_test_units: int = Field(8, ge=1)
    """Held-out units needed before a run may start; with fewer the gate could not judge."""
    max_test_chars: int = Field(2_000_000, ge=10_000)
    """Most held-out characters the gate evaluates, by whole files; a fixed choice by hash."""
    line_lease_s: float = Field(60, ge=5)
    """Seconds after which a daemon that no longer renews its lease is taken for dead; the same in all daemons."""
    back_off_s: float = Field(300, ge=1)
    """Seconds before another try after a failed run; doubled with each failure in a row, up to a day."""
    max_run_attempts: int = Field(3, ge=1)
    """Times in a row a run is interrupted without a new checkpoint before it is given up and its rows are released."""
    bisect_after: int = Field(3, ge=1)
    """Data-caused failures in a row after which the rows of a run are halved until the one at fault is found."""
    bootstrap_rounds: int = Field(2000, ge=200)
    """Resamplings of the gate's paired bootstrap."""
    bootstrap_confidence: float = Field(0.99, gt=0.5, lt=1)
    """Confidence that the candidate is better, for it to be promoted."""
    base_share: float = Field(0.5, gt=0, lt=1)
    """`local:tiny` only: most of the training units that run 0 may take for the base."""
    base_max_chars: int = Field(2_800_000, ge=10_000)
    """`local:tiny` only: most characters that run 0 may take."""
    api_log_days: float = Field(365, gt=0)
    """Days after which the record of a call of the API that changed something is removed (`token log`)."""
    api_log_rows: int = Field(100_000, ge=1)
    """Most such records that are kept, the newest ones."""
    courtesy_s: float | None = Field(None, ge=5)
    """Seconds within which a run leaves the GPU to another process that computes on it, and waits; unset: it stays."""
    stop_grace_s: float = Field(50, gt=0)
    """Seconds a child gets to write its checkpoint when asked to stop."""

    @field_validator("train_windows", "quiet_hours")
    @classmethod
    def _check_windows(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            parse_window(text)
        return texts

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{name!r} is no time zone here: give an IANA name, such as 'Europe/Berlin'") from error
        return name

    @model_validator(mode="after")
    def _check_watch(self) -> Self:
        if not self.watch and (self.watch_files is not None or self.watch_commits is not None):
            raise ValueError("watch_files and watch_commits say how much of what `watch` names: name repositories")
        return self

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars ({self.min_chars}) is above max_chars ({self.max_chars}): lower it")
        if self.threshold_rows > self.max_rows:
            raise ValueError(
                f"threshold_rows ({self.threshold_rows}) is above max_rows ({self.max_rows}): no run could start"
            )
        return self

    @property
    def makes_base(self) -> bool:
        """Whether the base of this line is made on this machine (run 0)."""
        return self.base_model == LOCAL_BASE


LOCAL_BASE = "local:tiny"


def settings_of(config: Mapping[str, Any]) -> DaemonSettings:
    """Return the settings that a run was claimed with; what only another version of the code knows is left out."""
    known = {name: config[name] for name in DaemonSettings.model_fields if name in config}
    if "recompute" in config:  # of a run that was claimed when it was all layers or none
        known.setdefault("checkpointed_layers", "all" if config["recompute"] else 0)
    return DaemonSettings.model_validate(known)


class Settings(Protocol):
    """The sections that the daemon's commands use."""

    @property
    def home(self) -> Path: ...  # noqa: D102
    @property
    def profile(self) -> str: ...  # noqa: D102
    @property
    def database(self) -> DatabaseSettings: ...  # noqa: D102
    @property
    def monitoring(self) -> MonitoringSettings: ...  # noqa: D102
    @property
    def daemon(self) -> DaemonSettings: ...  # noqa: D102
