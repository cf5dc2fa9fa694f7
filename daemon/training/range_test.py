"""Verb `range_test`: a new adapter learns at ever higher rates, to see where its loss falls and where it runs away."""

import dataclasses
import math
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from daemon.files import write_json
from daemon.job import MEMBERS, Job
from daemon.rates import Point, has_diverged, rate_of, smooth
from daemon.training.attention import choose_attention
from daemon.training.base import load_base
from daemon.training.base_files import load_base_tokenizer
from daemon.training.checkpoints import CHECKPOINTS
from daemon.training.child import Child, Failed
from daemon.training.failures import OutOfMemory
from daemon.training.kernels import choose_kernels
from daemon.training.lora import attach_adapter
from daemon.training.material import make_rows
from daemon.training.model import compute_dtype, prepare_device
from daemon.training.passes import checkpoint_layers, choose_pass, describe_pass, read_shape
from daemon.training.rows import PackedRows, read_items
from daemon.training.train import make_plan
from daemon.training.trainer import PackedTrainer

POINTS = "points.json"


class RangeTrainer(PackedTrainer):
    """A trainer that raises the rate at every step, keeps the losses, and ends where they run away."""

    def __init__(self, low: float, *parts: Any) -> None:
        super().__init__(*parts)
        self.low = low
        self.losses: list[float] = []

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:  # noqa: ARG002
        """Rise to the plan's rate, each step by the same factor."""
        share = partial(rate_of, num_steps=num_training_steps, low=self.low / self.plan.learning_rate, high=1.0)
        self.lr_scheduler = LambdaLR(self.optimizer, share)  # type: ignore[arg-type]
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002
        """Keep the loss of a step, and end where it has run away."""
        if "loss" not in logs or self.accelerator.optimizer_step_was_skipped:  # then the rate is tried once more
            return
        self.losses.append(logs["loss"])
        if has_diverged(self.losses):
            self.control.should_training_stop = True
        else:  # an event holds no number that is none
            self.child.emit("step", step=len(self.losses), total=self.plan.num_steps, loss=logs["loss"])

    def points(self) -> list[Point]:
        """Return rate and loss of each step."""
        rates = [
            rate_of(step, self.plan.num_steps, self.low, self.plan.learning_rate) for step in range(len(self.losses))
        ]
        return [Point(*one) for one in zip(rates, self.losses, smooth(self.losses), strict=True)]


def range_test(job: Job, job_dir: Path, child: Child) -> None:
    """Run the steps and write points.json; the weights are thrown away."""
    asked, settings = job.rates, job.settings
    assert asked is not None  # noqa: S101 - who starts this verb gives them
    shape = read_shape(job)  # of a base that no adapter can be trained on there is none
    prepare_device(job)
    attention = choose_attention(settings.attention, job.device, compute_dtype(settings), child)
    kernels = choose_kernels(settings.fused_kernels, job.device, compute_dtype(settings), child)
    fit = choose_pass(job, shape, attention.name, None)
    child.emit("plan", **fit.to_event())
    child.phase("tokenize")
    rows, _ = make_rows(read_items(job_dir / MEMBERS), load_base_tokenizer(job), job, child)
    num_rows = asked.steps * settings.micro_batch * settings.accumulation
    rows = PackedRows(list(islice(cycle(rows.rows), num_rows)))
    child.phase("load")
    model = attach_adapter(load_base(job, attention, child.note, rows.rows), job, kernels)
    checkpoint_layers(model, fit.checkpointed_layers)
    child.phase("train")
    plan = dataclasses.replace(
        make_plan(job, rows, fit.micro_batch, flat=attention.flat),
        fit=fit, learning_rate=asked.high, checkpoint_interval_s=math.inf,
    )  # fmt: skip
    trainer = RangeTrainer(asked.low, model, rows, None, plan, job_dir / CHECKPOINTS, child)
    try:
        trainer.run()
    except OutOfMemory as error:
        message = f"{describe_pass(fit)} do not fit: set a smaller CODELUPE_MEMORY_GIB or CODELUPE_MICRO_BATCH"
        raise Failed("out_of_memory", message) from error
    write_json(job_dir / POINTS, {"points": [dataclasses.asdict(point) for point in trainer.points()]})
