"""The training loop: transformers' Trainer with our batches, loss, schedule and evaluation."""

# ruff: noqa: ARG002 - the signatures are the Trainer's

import math
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback

from daemon.training.arguments import make_arguments
from daemon.training.checkpointed import CheckpointedTrainer, Clock
from daemon.training.child import Child, Failed, Stopped
from daemon.training.completions import Completions
from daemon.training.data import Batch, collate
from daemon.training.failures import OutOfMemory, blaming, raise_if_out_of_memory
from daemon.training.lora import restore_state, trainable_state
from daemon.training.loss import sum_losses
from daemon.training.model import head, hidden_at_targets
from daemon.training.prefetch import Prefetch
from daemon.training.progress import Plan, Progress
from daemon.training.ranks import add_up, meet, num_ranks, share_gradients
from daemon.training.report import peak_bytes, reset_peak
from daemon.training.rows import PackedRows, Row, Rows, fill_up, names_of
from daemon.training.schedule import rate_share, tokens_per_second
from daemon.training.stopping import check_is_number, check_spike, count_skipped, judge, smooth
from daemon.training.validation import measure


class PackedTrainer(CheckpointedTrainer):
    """Train what requires a gradient on packed rows; keep the state with the best validation loss."""

    def __init__(
        self, model: Any, rows: Rows, validation: PackedRows | None, plan: Plan, folder: Path, child: Child
    ) -> None:
        self.rows, self.validation = rows, validation
        if num_ranks() > 1:
            self.rows = fill_up(rows, plan.num_steps * plan.accumulation * plan.micro_batch * num_ranks())
        super().__init__(
            plan,
            folder,
            child,
            model=model,
            args=make_arguments(plan, folder),
            train_dataset=self.rows,
            data_collator=self._collate,
        )
        self.remove_callback(PrinterCallback)
        self.add_callback(Clock(self))
        self.model_accepts_loss_kwargs = True  # our losses are divided by the tokens of the whole step
        self.step_tokens = self.step_targets = 0
        self.data_wait_s = 0.0
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
        checkpoint = self.find_checkpoint()
        reset_peak(self.plan.device)
        self.saved_at = self.started_at = time.monotonic()
        try:
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (Stopped, OutOfMemory) as error:
            if isinstance(error, OutOfMemory) and num_ranks() > 1:
                raise  # the others wait within the step: nobody may wait for them
            # Nothing draws random numbers inside a step (no dropout), so this is the state at the step's start.
            self._trained.zero_grad()
            self._save_checkpoint(self._trained)
            meet()
            raise
        except (MemoryError, RuntimeError) as error:
            # Outside of a micro-batch, maybe with a step half done: the last checkpoint counts.
            raise_if_out_of_memory(error)
        self.keep_time()
        if self.best is not None:
            restore_state(self._trained, self.best)
        return self.progress

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Run the epoch, unless the evaluation before it, or one before the checkpoint, has ended the run."""
        if not self.progress.stopped_early:
            with Prefetch(self.plan.device) as self.prefetch:
                super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Run one micro-batch forward and backward, unless the parent asked to stop."""
        self.child.check_stop()
        with blaming(inputs["items"]):
            try:
                return super().training_step(model, inputs, num_items_in_batch)
            except (MemoryError, RuntimeError) as error:
                raise_if_out_of_memory(error)

    def _collate(self, rows: Sequence[Row]) -> Batch:
        names = names_of(rows)
        with blaming(names):
            return collate(rows, flat=self.plan.flat) | {"items": names}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this micro-batch's share of the step's mean loss per completion token.

        Of several processes each returns so many times its share: their gradients and losses are averaged.
        """
        if model is not self._trained:
            return model(inputs, max(1, num_items_in_batch) / num_ranks())
        return self._loss(model, inputs, max(1, num_items_in_batch))

    def _loss(self, model: Any, inputs: dict[str, Any], num_targets: float) -> Tensor:
        hidden = hidden_at_targets(model, inputs, self.plan.dtype)
        return sum_losses(hidden, head(model), inputs["targets"]) / num_targets

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        return model if num_ranks() == 1 else share_gradients(model, self._loss)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Return the batches of a step and its completion tokens; remember how long the step waited for them."""
        started = time.perf_counter()
        batches = self.prefetch.take(epoch_iterator, num_batches)
        self.data_wait_s = time.perf_counter() - started
        return batches, self._get_num_items_in_batch(batches, device)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> int:
        """Return the completion tokens of the step, of all processes; raise Stopped where one was asked to stop."""
        targets = sum(len(batch["targets"]) for batch in batch_samples)
        tokens = sum(batch["num_tokens"] for batch in batch_samples)
        told = [targets, tokens, num_ranks() > 1 and self.child.stop_requested()]
        self.step_targets, self.step_tokens, asked = map(int, add_up(told, device))
        if asked:
            raise Stopped
        return self.step_targets

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tell the parent about one step; stop where its loss or gradient is not a number, or the loss has run away."""
        if "loss" not in logs:
            return
        step, loss = self.state.global_step, logs["loss"]
        norm = self._check_step(step, loss, logs.get("grad_norm", 0.0))
        self.progress.tokens += self.step_tokens
        self.progress.completion_tokens += self.step_targets
        self.progress.step, self.progress.loss = step, loss
        self.recent.append((time.monotonic(), self.step_tokens))
        speed = tokens_per_second(self.recent, self.started_at)
        self.eta_s = (self.plan.num_steps - step) * self.progress.tokens / max(1, step) / speed
        self.child.emit(
            "step",
            step=step,
            total=self.plan.num_steps,
            epoch=round(self.state.epoch or 0.0, 4),
            loss=loss,
            smoothed_loss=smooth(self.progress, loss),
            lr=logs["learning_rate"],
            **norm,
            tokens=self.progress.tokens,
            tokens_per_s=round(speed, 1),
            eta_s=round(self.eta_s, 1),
            data_wait_s=round(self.data_wait_s, 4),
            micro_batch=self.plan.micro_batch,
            peak_bytes=peak_bytes(self.plan.device),
        )
        if self.board is not None:
            self.board.on_log(self.args, self.state, self.control, logs=logs | {"tokens_per_s": speed})
        check_spike(self.progress, self.plan, step, loss)

    def _check_step(self, step: int, loss: float, norm: float) -> dict[str, float]:
        """Return the gradient's norm as a figure; that of a step which was skipped is none.

        In float16 a gradient may overflow: then its scale has been halved, and optimizer and schedule stood still.
        """
        if self.accelerator.optimizer_step_was_skipped and math.isfinite(loss):
            scale = self.accelerator.scaler.get_scale()
            self.child.note("step_skipped", count_skipped(self.progress, step, scale))
            return {}
        check_is_number(step, loss, norm)
        self.progress.skipped_in_a_row = 0
        return {"grad_norm": norm}

    # Evaluation and early stopping

    def is_eval_due(self, step: int) -> bool:
        """Whether a step is to be evaluated and has not been."""
        at_end = step == self.plan.num_steps
        return (at_end or step % self.plan.eval_every == 0) and self.progress.last_eval_step != step

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the validation subsample, remember the best state, decide whether to go on."""
        self.control.should_evaluate = False  # else the end of the epoch would evaluate the same step again
        if self.validation is None:
            return {}
        step = self.state.global_step
        loss, bits = measure(self._trained, self.validation, self.plan, self._prepare_inputs, self.child)
        if not math.isfinite(loss):
            message = f"step {step}: validation loss {loss}; the weights of this run are lost"
            raise Failed("nan", message, data_caused=step > 0)  # before the first step no row was learned
        self.progress.validation_loss, self.progress.validation_bits_per_byte = loss, bits
        best = judge(self.progress, self.plan, step, loss)
        if best and self.plan.patience is not None:
            self.best = trainable_state(self._trained)
        if self.progress.stopped_early:
            self.control.should_training_stop = True
        self.child.emit("eval", step=step, loss=loss, bits_per_byte=bits, best=best)
        if self.board is not None:
            told = {"eval_loss": loss, "eval_bits_per_byte": bits}
            self.board.on_log(self.args, self.state, self.control, logs=told)
        if self.completions is not None:
            self.completions.show(self)
        return {"eval_loss": loss}

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
