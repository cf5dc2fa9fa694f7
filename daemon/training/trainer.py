"""The training loop: transformers' Trainer with our batches, loss, schedule, evaluation and checkpoints."""

# ruff: noqa: ARG002 - the signatures are the Trainer's

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from daemon.files import sweep_temporaries
from daemon.training.checkpoints import find_checkpoint, new_checkpoint
from daemon.training.child import Child, Failed, Stopped
from daemon.training.completions import Completions
from daemon.training.data import Batch, PackedRows, Row, collate, names_of
from daemon.training.failures import OutOfMemory, blaming, raise_if_out_of_memory
from daemon.training.lora import State, restore_state, trainable_state
from daemon.training.loss import sum_losses, token_losses
from daemon.training.model import head, hidden_at_targets
from daemon.training.schedule import is_spike, rate_share, tokens_per_second

log = logging.getLogger(__name__)
WEIGHTS, BEST, PROGRESS = "weights.safetensors", "best.safetensors", "progress.json"
SMOOTHED, FIRST = 10, 3  # the mean loss of the last steps is compared with that of the first ones


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
    patience: int
    min_improvement: float
    seed: int
    device: str
    dtype: torch.dtype
    flat: bool


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
    num_evals: int = 0
    last_eval_step: int | None = None
    best_loss: float | None = None
    best_step: int | None = None
    reference_loss: float | None = None
    """Validation loss at the last improvement that counted."""
    evals_without_improvement: int = 0
    stopped_early: bool = False
    micro_batch: int = 0


class PackedTrainer(Trainer):
    """Train what requires a gradient on packed rows; keep the state with the best validation loss."""

    def __init__(
        self, model: Any, rows: PackedRows, validation: PackedRows | None, plan: Plan, folder: Path, child: Child
    ) -> None:
        super().__init__(
            model=model,
            args=_arguments(plan, folder),
            train_dataset=rows,
            data_collator=self._collate,
        )
        self.remove_callback(PrinterCallback)
        self.add_callback(_Clock(self))
        self.model_accepts_loss_kwargs = True  # our losses are divided by the tokens of the whole step
        self.plan, self.rows, self.validation = plan, rows, validation
        self.folder, self.child = folder, child
        self._trained: Any = model
        self.progress = Progress(micro_batch=plan.micro_batch)
        self.best: State | None = None
        self.saved_at = self.started_at = time.monotonic()
        self.step_tokens = self.step_targets = 0
        self.data_wait_s = 0.0  # of the last step
        self.recent: deque[tuple[float, int]] = deque(maxlen=20)
        self.board: TrainerCallback | None = None
        self.completions: Completions | None = None

    def track(self, board: TrainerCallback | None, completions: Completions | None = None) -> None:
        """Tell figures to `board` as well, and show completions at each evaluation."""
        self.board, self.completions = board, completions
        if board is not None:
            self.add_callback(board)

    # What happens, in order

    def run(self) -> Progress:
        """Train from the newest whole checkpoint to the end; leave the best state in the model.

        Raises:
            Stopped: the parent asked; a checkpoint of the last whole step is on disk, unless that is full.
            OutOfMemory: a smaller micro-batch can go on from the last checkpoint.
            Failed: the loss is not a number, or has run away.
        """
        checkpoint = self._find_checkpoint()
        self.saved_at = self.started_at = time.monotonic()
        try:
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (Stopped, OutOfMemory):
            # Nothing draws random numbers inside a step (no dropout), so this is the state at the step's start.
            self._trained.zero_grad()
            self._save_checkpoint(self._trained)
            raise
        except (MemoryError, RuntimeError) as error:
            # Outside of a micro-batch, maybe with a step half done: the last checkpoint counts.
            raise_if_out_of_memory(error)
        self._keep_time()
        if self.best is not None:
            restore_state(self._trained, self.best)
        return self.progress

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Run the epoch, unless the evaluation before it, or one before the checkpoint, has ended the run."""
        if not self.progress.stopped_early:
            super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Run one micro-batch forward and backward, unless the parent asked to stop."""
        self.child.check_stop()
        with blaming(inputs["items"]):
            try:
                loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
            except (MemoryError, RuntimeError) as error:
                raise_if_out_of_memory(error)
        self.step_tokens += inputs["num_tokens"]
        self.step_targets += len(inputs["targets"])
        return loss

    def _collate(self, rows: Sequence[Row]) -> Batch:
        names = names_of(rows)
        with blaming(names):
            return collate(rows, flat=self.plan.flat) | {"items": names}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this micro-batch's share of the step's mean loss per completion token."""
        hidden = hidden_at_targets(model, inputs, self.plan.dtype)
        return sum_losses(hidden, head(model), inputs["targets"]) / max(1, num_items_in_batch)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Return the batches of the next step, and remember how long they took to come."""
        started = time.perf_counter()
        batches = super().get_batch_samples(*args, **kwargs)
        self.data_wait_s = time.perf_counter() - started
        return batches

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> int:
        return sum(len(batch["targets"]) for batch in batch_samples)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tell the parent about one step; stop where its loss or gradient is not a number, or the loss has run away."""
        if "loss" not in logs:
            return
        step, loss, norm = self.state.global_step, logs["loss"], logs.get("grad_norm", 0.0)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            message = f"step {step}: loss {loss}, gradient norm {norm}; the weights of this run are lost"
            raise Failed("nan", message, data_caused=True)
        self.progress.tokens += self.step_tokens
        self.progress.completion_tokens += self.step_targets
        self.progress.step, self.progress.loss = step, loss
        speed = self._measure_speed()
        remaining = (self.plan.num_steps - step) * self.progress.tokens / max(1, step)
        self.child.emit(
            "step",
            step=step,
            total=self.plan.num_steps,
            epoch=round(self.state.epoch or 0.0, 4),
            loss=loss,
            smoothed_loss=mean([*self.progress.last_losses, loss][-SMOOTHED:]),
            lr=logs["learning_rate"],
            grad_norm=norm,
            tokens=self.progress.tokens,
            tokens_per_s=round(speed, 1),
            eta_s=round(remaining / speed, 1),
            data_wait_s=round(self.data_wait_s, 4),
            micro_batch=self.plan.micro_batch,
        )
        self.step_tokens = self.step_targets = 0
        if self.board is not None:
            self.board.on_log(self.args, self.state, self.control, logs=logs | {"tokens_per_s": speed})
        self._check_spike(step, loss)

    def _check_spike(self, step: int, loss: float) -> None:
        """Stop where the last losses are far above the first ones; a single bad step is none, nor is the warm-up."""
        progress = self.progress
        progress.last_losses = [*progress.last_losses, loss][-SMOOTHED:]
        smoothed = sum(progress.last_losses) / len(progress.last_losses)
        if progress.first_loss is None:
            progress.first_loss = smoothed if step == FIRST else None
            return
        is_measured = len(progress.last_losses) == SMOOTHED and step > self.plan.warmup_steps
        if is_measured and is_spike(smoothed, progress.first_loss):
            raise Failed(
                "loss_spike",
                f"step {step}: the last {SMOOTHED} steps have a mean loss of {smoothed:.2f}, the first {FIRST} had "
                f"{progress.first_loss:.2f}: set a smaller CODELUPE_LEARNING_RATE (this run's peak is "
                f"{self.plan.learning_rate:g}), or look at what this run was given",
                data_caused=True,
            )

    def _measure_speed(self) -> float:
        """Return the tokens per second of the last steps."""
        self.recent.append((time.monotonic(), self.step_tokens))
        return tokens_per_second(self.recent, self.started_at)

    # Evaluation and early stopping

    def is_eval_due(self, step: int) -> bool:
        """Whether a step is to be evaluated and has not been."""
        at_end = step == self.plan.num_steps
        return (at_end or step % self.plan.eval_every == 0) and self.progress.last_eval_step != step

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the validation subsample, remember the best state, decide whether to go on."""
        self.control.should_evaluate = False  # else the end of the epoch would evaluate the same step again
        if self.validation is None:
            return {}
        nats, num_tokens, num_bytes = 0.0, 0, 0
        for start in range(0, len(self.validation), self.plan.micro_batch):
            self.child.check_stop()
            rows = self.validation.rows[start : start + self.plan.micro_batch]
            batch = self._prepare_inputs(collate(rows, flat=self.plan.flat))
            hidden = hidden_at_targets(self._trained, batch, self.plan.dtype)
            nats += token_losses(hidden, head(self._trained), batch["targets"]).sum(dtype=torch.float64).item()
            num_tokens += len(batch["targets"])
            num_bytes += sum(sample.completion_bytes for row in rows for sample in row)
        loss, step = nats / max(1, num_tokens), self.state.global_step
        if not math.isfinite(loss):
            message = f"step {step}: validation loss {loss}; the weights of this run are lost"
            raise Failed("nan", message, data_caused=step > 0)  # before the first step no row was learned
        best = self._judge(loss)
        bits = nats / math.log(2) / max(1, num_bytes)
        self.child.emit("eval", step=step, loss=loss, bits_per_byte=bits, best=best)
        if self.board is not None:
            told = {"eval_loss": loss, "eval_bits_per_byte": bits}
            self.board.on_log(self.args, self.state, self.control, logs=told)
        if self.completions is not None:
            self.completions.show(self)
        return {"eval_loss": loss}

    def _judge(self, loss: float) -> bool:
        """Record a validation loss; ask for the end after `patience` ones in a row without a real improvement."""
        progress, plan = self.progress, self.plan
        progress.num_evals += 1
        progress.last_eval_step = self.state.global_step
        best = progress.best_loss is None or loss < progress.best_loss
        if best:
            progress.best_loss, progress.best_step = loss, self.state.global_step
            self.best = trainable_state(self._trained)
        if progress.reference_loss is None or loss < progress.reference_loss * (1 - plan.min_improvement):
            progress.reference_loss, progress.evals_without_improvement = loss, 0
        else:
            progress.evals_without_improvement += 1
        if progress.evals_without_improvement >= plan.patience and self.state.global_step < plan.num_steps:
            progress.stopped_early = True
            self.control.should_training_stop = True
        return best

    # Checkpoints

    def _find_checkpoint(self) -> Path | None:
        """Return where to go on from, and say so; drop what a killed process was writing."""
        sweep_temporaries(self.folder)
        torn: list[Path] = []
        checkpoint = find_checkpoint(self.folder, torn.append)
        source = checkpoint.name if checkpoint else "the beginning"
        if torn:
            message = f"not whole, passed over: {', '.join(path.name for path in torn)}"
            self.child.emit("note", note="checkpoint_torn", message=message)
        if torn or checkpoint:
            self.child.emit("note", note="resumed", message=f"from {source}")
        return checkpoint

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        """Write a checkpoint; a full disk costs that one, not the training, and is tried again an interval later."""
        started = time.monotonic()
        self._keep_time()
        try:
            num_bytes = self._write_checkpoint()
        except Failed as error:
            if error.failure.reason != "disk":
                raise
            message = f"step {self.state.global_step}: {error}; what was learned since the last checkpoint is not safe"
            log.warning(message, extra={"event": "checkpoint_failed"})
            self.child.emit("note", note="checkpoint_failed", message=message)
        else:
            seconds = round(time.monotonic() - started, 3)
            self.child.emit("checkpoint", step=self.state.global_step, seconds=seconds, bytes=num_bytes)
        self.saved_at = time.monotonic()

    def _write_checkpoint(self) -> int:
        """Return the bytes written; raise Failed(disk) where they cannot be."""
        with new_checkpoint(self.folder, self.state.global_step) as folder:
            save_file(trainable_state(self._trained), folder / WEIGHTS)
            if self.best is not None:
                save_file(self.best, folder / BEST)
            self._save_optimizer_and_scheduler(str(folder))
            self._save_rng_state(str(folder))
            self.state.save_to_json(str(folder / "trainer_state.json"))
            (folder / PROGRESS).write_text(self.progress.model_dump_json())
            return sum(file.stat().st_size for file in folder.iterdir())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        restore_state(self._trained, load_file(folder / WEIGHTS))
        self.best = load_file(folder / BEST) if (folder / BEST).exists() else None
        saved = Progress.model_validate_json((folder / PROGRESS).read_text())
        self.progress = saved.model_copy(update={"micro_batch": self.plan.micro_batch})

    def _keep_time(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self.started_at
        self.started_at = now

    # What Trainer would do otherwise than we need

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Warm up from the first step on (Trainer's own begins with a step at rate 0), then a cosine to 10 %."""
        share = partial(rate_share, num_steps=num_training_steps, warmup_steps=self.plan.warmup_steps)
        self.lr_scheduler = LambdaLR(self.optimizer, share)  # type: ignore[arg-type]
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.rows)  # the rows are shuffled, all epochs in one

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: nobody asks, and counting parameters in every micro-batch costs time."""
        return 0


class _Clock(TrainerCallback):
    """Say when to evaluate and when to save."""

    def __init__(self, trainer: PackedTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Where a run starts from is a candidate for the best, too; and a stop may have cut an evaluation short.
        if self.trainer.is_eval_due(state.global_step):
            self.trainer.evaluate()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_evaluate = self.trainer.is_eval_due(state.global_step)
        control.should_save = time.monotonic() - self.trainer.saved_at >= self.trainer.plan.checkpoint_interval_s
        return control


def _arguments(plan: Plan, folder: Path) -> TrainingArguments:
    args = TrainingArguments(
        output_dir=str(folder),
        use_cpu=plan.device == "cpu",
        num_train_epochs=1,
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=plan.learning_rate,
        weight_decay=plan.weight_decay,
        max_grad_norm=plan.max_grad_norm,
        optim=plan.optimizer,
        adam_beta2=plan.adam_beta2,
        seed=plan.seed,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=plan.device != "cpu",
        dataloader_num_workers=0,
    )
    if args.device.type == "cuda":  # to ask for the device is what makes it count the GPUs in sight
        args._n_gpu = 1  # noqa: SLF001 - no argument sets it
    return args
