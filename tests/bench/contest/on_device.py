"""One variant of the GPU bench, in its process: build the base, train random documents of full length, time it."""

import resource
import tempfile
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peft import get_peft_model, prepare_model_for_kbit_training
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

from daemon.job import Event, Job
from daemon.samples import Sample
from daemon.training.attention import choose_attention
from daemon.training.child import Child
from daemon.training.kernels import choose_kernels
from daemon.training.lora import attach_adapter
from daemon.training.model import compute_dtype, prepare_device
from daemon.training.passes import checkpoint_layers, choose_pass
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
    allocated, reserved = peak_bytes(device)
    pipe.send(
        {
            **plan,
            "tokens_per_step": per_step,
            "tokens_per_s": round(per_step / float(np.median(measured)), 1),
            "step_seconds": [round(float(seconds), 3) for seconds in measured],
            "first_step_s": round(ends[1] - started, 2),
            "peak_gib": round(allocated / _GIB, 3),
            "peak_reserved_gib": round(reserved / _GIB, 3),
        }
    )


def train_ours(variant: Variant, job: Job, folder: Path, note: Any) -> dict[str, Any]:
    """Train with our trainer, as the planner chooses for the memory that is there; return what it has chosen."""
    settings = job.settings
    silent = Child(lambda _: None)
    attention = choose_attention(settings.attention, job.device, compute_dtype(settings), silent)
    kernels = choose_kernels(settings.fused_kernels, job.device, compute_dtype(settings), silent)
    fit = choose_pass(job, variant.shape, attention.name, None)
    base = build_base(variant.shape, settings, job.device, attention.implementation)
    model = attach_adapter(base, job, kernels)
    checkpoint_layers(model, fit.checkpointed_layers)

    def follow(event: Event) -> None:
        if event["event"] == "step":
            note()

    rows = PackedRows([[_write_sample(ids)] for ids in draw(variant)])
    plan = replace(make_plan(job, rows, fit.micro_batch, flat=attention.flat), fit=fit)
    PackedTrainer(model, rows, None, plan, folder, Child(follow)).run()
    planned = {"planned_gib": round(fit.memory.total / _GIB, 3)}
    chosen = {"micro_batch": fit.micro_batch, "checkpointed_layers": fit.checkpointed_layers}
    return {"attention": attention.name, "kernels": kernels.name, **chosen, **planned}


def train_stock(variant: Variant, job: Job, folder: Path, note: Any) -> dict[str, Any]:
    """Train with transformers' Trainer as it is published: recomputation, SDPA, the model's own loss."""
    settings = job.settings
    model = prepare_model_for_kbit_training(build_base(variant.shape, settings, job.device, "sdpa"))

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
    return {"attention": "sdpa", **chosen, "planned_gib": None}


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


def peak_bytes(device: str) -> tuple[int, int]:
    """Return the peak of allocated and of reserved device memory; on a CPU that of the process, twice."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return peak, peak
