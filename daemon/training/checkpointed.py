"""A Trainer whose checkpoints are ours: whole or not there, with what was learned, the best state, and the progress."""

# ruff: noqa: ARG002 - the signatures are the Trainer's

import logging
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerCallback

from daemon.files import sweep_temporaries
from daemon.training.checkpoints import find_checkpoint, new_checkpoint
from daemon.training.child import Child, Failed
from daemon.training.lora import State, restore_state, trainable_state
from daemon.training.optimizer import choose_optimizer
from daemon.training.progress import PROGRESS, Plan, Progress
from daemon.training.ranks import rank
from daemon.training.schedule import checkpoint_interval

log = logging.getLogger(__name__)
WEIGHTS, BEST = "weights.safetensors", "best.safetensors"


class CheckpointedTrainer(Trainer):
    """Keep what is trained, the optimizer, the random numbers, the place in the data and the progress."""

    def __init__(self, plan: Plan, folder: Path, child: Child, **trainer: Any) -> None:
        super().__init__(optimizer_cls_and_kwargs=choose_optimizer(plan), **trainer)
        self.plan, self.folder, self.child = plan, folder, child
        self._trained: Any = trainer["model"]
        self.progress = Progress(**plan.ways())
        self.best: State | None = None
        self.saved_at = self.started_at = time.monotonic()
        self.checkpoint_s = self.eta_s = 0.0
        """Seconds that the last checkpoint took, and that are left of the run."""

    def find_checkpoint(self) -> Path | None:
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
        """Write a checkpoint; a full disk costs that one, not the training, and is tried again an interval later.

        Of several processes, which all know the same, the first writes it.
        """
        if rank() > 0:
            return
        started = time.monotonic()
        self.keep_time()
        try:
            num_bytes = self._write_checkpoint()
        except Failed as error:
            if error.failure.reason != "disk":
                raise
            message = f"step {self.state.global_step}: {error}; what was learned since the last checkpoint is not safe"
            log.warning(message, extra={"event": "checkpoint_failed"})
            self.child.emit("note", note="checkpoint_failed", message=message)
            self.checkpoint_s = 0.0  # tried again as soon as the settings say
        else:
            self.checkpoint_s = time.monotonic() - started
            seconds = round(self.checkpoint_s, 3)
            self.child.emit("checkpoint", step=self.state.global_step, seconds=seconds, bytes=num_bytes)
        self.saved_at = time.monotonic()

    def is_checkpoint_due(self) -> bool:
        """Whether it is time for the next one."""
        now, wanted_s = time.monotonic(), self.plan.checkpoint_interval_s
        run_s = self.progress.seconds + now - self.started_at + self.eta_s
        return now - self.saved_at >= checkpoint_interval(wanted_s, last_s=self.checkpoint_s, run_s=run_s)

    def _write_checkpoint(self) -> int:
        """Return the bytes written; raise Failed(disk) where they cannot be."""
        with new_checkpoint(self.folder, self.state.global_step) as folder:
            save_file(trainable_state(self._trained), folder / WEIGHTS)
            if self.best is not None:
                save_file(self.best, folder / BEST)
            self._save_optimizer_and_scheduler(str(folder))
            self._save_scaler(str(folder))
            self._save_rng_state(str(folder))
            self.state.save_to_json(str(folder / "trainer_state.json"))
            (folder / PROGRESS).write_text(self.progress.model_dump_json())
            return sum(file.stat().st_size for file in folder.iterdir())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        restore_state(self._trained, load_file(folder / WEIGHTS))
        self.best = load_file(folder / BEST) if (folder / BEST).exists() else None
        saved = Progress.model_validate_json((folder / PROGRESS).read_text())
        self.progress = saved.model_copy(update=self.plan.ways())

    def keep_time(self) -> None:
        """Add the seconds since the last call to those of the run."""
        now = time.monotonic()
        self.progress.seconds += now - self.started_at
        self.started_at = now


class Clock(TrainerCallback):
    """Say when to evaluate and when to save."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate what the run starts from."""
        # It is a candidate for the best, too; and a stop may have cut an evaluation short.
        if self.trainer.is_eval_due(state.global_step):
            self.trainer.evaluate()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Look at the step and at the clock."""
        control.should_evaluate = self.trainer.is_eval_due(state.global_step)
        control.should_save = self.trainer.is_checkpoint_due()
        return control
