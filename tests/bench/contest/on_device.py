"""One variant of the GPU bench, in its process: build the base, train random documents of full length, time it."""

import tempfile
import time
import warnings
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peft import get_peft_model, prepare_model_for_kbit_training
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

from daemon.fitting import Fit
from daemon.job import Event, Job
from daemon.samples import Sample
from daemon.training.attention import choose_attention
from daemon.training.checkpoints import CHECKPOINTS
from daemon.training.child import Child
from daemon.training.kernels import choose_kernels
from daemon.training.lora import attach_adapter
from daemon.training.model import compute_dtype, prepare_device
from daemon.training.passes import checkpoint_layers, train_fitting
from daemon.training.report import peak_bytes, reset_peak
from daemon.training.rows import PackedRows
from daemon.training.train import make_plan
from daemon.training.trainer import PackedTrainer
from tests.bench.contest.random_base import build_base
from tests.bench.contest.stock import arguments, lora_config
from tests.bench.contest.variants import Variant

_CEILING_S = 2.0
_GIB = 2**30


def measure_ceiling(pipe: Connection, device: str) -> None:
    """Send the operations per second of large matrix products."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (256, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    rates = []
    until = time.perf_counter() + (_CEILING_S if device == "cuda" else 0.1)
    while time.perf_counter() < until:
        started = time.perf_counter()
        for _ in range(10):
            left @ right
        synchronize(device)
        rates.append(10 * 2 * size**3 / (time.perf_counter() - started))
    pipe.send({"tflops": round(median(rates) / 1e12, 3)})


def measure_variant(pipe: Connection, variant: Variant, device: str, started: float) -> None:
    """Send the figures of a variant; `started` is when it was asked for, by the monotonic clock."""
    job = Job(line="bench", run=1, kind="adapter", seed=7, device=device, base="", settings=variant.settings)
    prepare_device(job)
    ends = [time.monotonic()]

    def note() -> None:
        synchronize(device)
        ends.append(time.monotonic())

    with tempfile.TemporaryDirectory(prefix="codelupe-bench-") as folder:
        train = train_stock if variant.stack == "stock" else train_ours
        plan = train(variant, job, Path(folder), note)
    settings = job.settings
    per_step = settings.micro_batch * settings.accumulation * settings.sequence_tokens
    measured = np.diff(ends)[variant.warmup_steps :]
    allocated, used = peak_bytes(device), used_bytes(device)
    pipe.send(
        {
            **plan,
            "tokens_per_step": per_step,
            "tokens_per_s": round(per_step / float(np.median(measured)), 1),
            "step_seconds": [round(float(seconds), 3) for seconds in measured],
            "first_step_s": round(ends[1] - started, 2),
            "peak_gib": round(allocated / _GIB, 3),
            "used_gib": round(used / _GIB, 3),
        }
    )


def train_ours(variant: Variant, job: Job, folder: Path, note: Any) -> dict[str, Any]:
    """Train with our trainer, as the planner chooses for the memory that is there; return what it has chosen.

    Where that memory runs out it goes on in the next smaller way, as the service does.
    """
    settings, notes = job.settings, Notes(note)
    child = Child(notes.follow)
    attention = choose_attention(settings.attention, job.device, compute_dtype(settings), child)
    kernels = choose_kernels(settings.fused_kernels, job.device, compute_dtype(settings), child)
    rows = PackedRows([[_write_sample(ids)] for ids in draw(variant)])

    def train_once(fit: Fit, _num_out_of_memory: int) -> None:
        base = build_base(variant.shape, settings, job.device, attention.implementation)
        model = attach_adapter(base, job, kernels)
        checkpoint_layers(model, fit.checkpointed_layers)
        plan = replace(make_plan(job, rows, fit.micro_batch, flat=attention.flat), fit=fit)
        PackedTrainer(model, rows, None, plan, folder / CHECKPOINTS, child).run()

    with warnings.catch_warnings(record=True) as notes.caught:
        warnings.simplefilter("always")
        train_fitting(job, folder, child, variant.shape, attention.name, train_once)
    total, tensors = notes.plan["planned_bytes"], notes.plan["planned_bytes"] - notes.plan["memory"]["overhead"]
    return {
        "attention": attention.name,
        "kernels": kernels.name,
        "micro_batch": notes.plan["micro_batch"],
        "checkpointed_layers": notes.plan["checkpointed_layers"],
        "planned_gib": round(total / _GIB, 3),
        "planned_tensors_gib": round(tensors / _GIB, 3),
        "syncs_per_step": notes.syncs,
        "notes": notes.told,
    }


class Notes:
    """What the trainer tells: its plan, ends of steps, what it passed over, how often a step made the host wait."""

    def __init__(self, note: Any) -> None:
        self._note = note
        self._num_steps = 0
        self.plan: dict[str, Any] = {}
        self.told: list[str] = []
        self.caught: list[warnings.WarningMessage] | None = None
        self.syncs: int | None = None

    def follow(self, event: Event) -> None:
        """Take one event; the waits are counted in the second step."""
        if event["event"] == "plan":
            self.plan = event
        if event["event"] == "note":
            self.told.append(f"{event['note']}: {event['message']}")
        if event["event"] == "step":
            self._end_step()

    def _end_step(self) -> None:
        self._num_steps += 1
        counts = torch.cuda.is_available() and self.caught is not None
        if self._num_steps == 2 and counts:
            torch.cuda.set_sync_debug_mode("default")
            self.syncs = sum("synchronizing CUDA operation" in str(one.message) for one in self.caught or ())
        self._note()
        if self._num_steps == 1 and counts:
            torch.cuda.set_sync_debug_mode("warn")


def train_stock(variant: Variant, job: Job, folder: Path, note: Any) -> dict[str, Any]:
    """Train with transformers' Trainer as it is published: recomputation, SDPA, the model's own loss."""
    settings = job.settings
    model = prepare_model_for_kbit_training(build_base(variant.shape, settings, job.device, "sdpa"))
    reset_peak(job.device)

    class Noting(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            note()

    made = arguments(job, folder, "stock", settings.micro_batch)
    made |= {"gradient_accumulation_steps": settings.accumulation, "bf16": settings.compute_dtype == "bfloat16"}
    Trainer(
        model=get_peft_model(model, lora_config(job)),
        args=TrainingArguments(**made),
        train_dataset=[{"input_ids": ids.tolist(), "labels": ids.tolist()} for ids in draw(variant)],
        data_collator=default_data_collator,
        callbacks=[Noting()],
    ).train()
    chosen = {"micro_batch": settings.micro_batch, "checkpointed_layers": variant.shape.num_layers}
    return {"attention": "sdpa", **chosen, "planned_gib": None, "planned_tensors_gib": None, "notes": []}


def draw(variant: Variant) -> list[np.ndarray]:
    """Return documents of a full sequence each, as many as all steps take."""
    settings, chance = variant.settings, np.random.default_rng(7)
    num = (variant.warmup_steps + variant.steps) * settings.micro_batch * settings.accumulation
    return list(chance.integers(variant.shape.vocabulary, size=(num, settings.sequence_tokens), dtype=np.uint32))


def _write_sample(ids: np.ndarray) -> Sample:
    return Sample(ids, 0, len(ids), 1, "random", "none", "random", "plain")


def synchronize(device: str) -> None:
    """Wait until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def used_bytes(device: str) -> int:
    """Return what is taken of the card, by its own account: tensors, context, gaps; 0 on a CPU."""
    if device != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free
