"""Verb `train`: one adapter, from the claimed rows to adapter/ and result.json."""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from daemon.fitting import Fit, find_smaller
from daemon.job import Job
from daemon.training.attention import Attention, choose_attention
from daemon.training.base import load_base
from daemon.training.base_files import load_base_tokenizer
from daemon.training.board import open_board
from daemon.training.child import Child, Failed
from daemon.training.completions import Completions
from daemon.training.failures import OutOfMemory
from daemon.training.folders import new_folder
from daemon.training.kernels import Kernels, choose_kernels
from daemon.training.lora import attach_adapter, save_adapter
from daemon.training.material import Material, count_steps, eval_interval, make_material
from daemon.training.model import compute_dtype, prepare_device
from daemon.training.passes import checkpoint_layers, choose_pass, describe_pass, last_progress, read_shape
from daemon.training.progress import Plan
from daemon.training.ranks import num_ranks, rank
from daemon.training.report import save_result
from daemon.training.rows import Rows
from daemon.training.trainer import PackedTrainer

CHECKPOINTS = "checkpoints"


def train(job: Job, job_dir: Path, child: Child, take: Callable[[], Material] | None = None) -> None:
    """Train in the fastest way that fits, and in a smaller one each time that memory does not suffice.

    `take` returns the material, where another process makes it (`ahead.py`).
    """
    settings = job.settings
    prepare_device(job)
    attention = choose_attention(settings.attention, job.device, compute_dtype(settings), child)
    child.emit("attention", attention=attention.name)
    kernels = choose_kernels(settings.fused_kernels, job.device, compute_dtype(settings), child)
    shape, last = read_shape(job), last_progress(job_dir / CHECKPOINTS)
    fit = choose_pass(job, shape, attention.name, last)
    num_out_of_memory = last.num_out_of_memory if last else 0
    child.phase("tokenize")
    material = take() if take else make_material(job, job_dir, child)
    while True:
        child.emit("plan", **fit.to_event())
        try:
            return train_once(job, job_dir, child, material, attention, kernels, fit, num_out_of_memory)
        except OutOfMemory as error:
            if num_ranks() > 1:  # the others wait within the step, and cannot be told
                message = f"device {rank()}: {describe_pass(fit)} do not fit: set a smaller CODELUPE_MICRO_BATCH"
                raise Failed("out_of_memory", message) from error
            smaller = find_smaller(shape, settings, job.device, attention.name, than=fit)
            if smaller is None:
                child.emit("note", note="out_of_memory", message="not even one sequence per forward pass fits")
                raise Failed("out_of_memory", f"not even one sequence per forward pass fits: {error}") from error
            fit, num_out_of_memory = smaller, num_out_of_memory + 1
        gc.collect()
        if job.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()  # what is measured is told beside the plan of the next try
        child.emit("note", note="out_of_memory", message=f"going on with {describe_pass(fit)}")


def train_once(
    job: Job,
    job_dir: Path,
    child: Child,
    material: Material,
    attention: Attention,
    kernels: Kernels,
    fit: Fit,
    num_out_of_memory: int,
) -> None:
    """Load, train, save."""
    settings, rows, validation = job.settings, material.rows, material.validation
    torch.manual_seed(settings.seed)  # each try begins alike
    tokenizer = load_base_tokenizer(job)
    plan = make_plan(job, rows, fit.micro_batch, flat=attention.flat)
    plan = replace(plan, fit=fit, num_out_of_memory=num_out_of_memory)

    child.phase("load")
    model = attach_adapter(load_base(job, attention, child.note, (validation or rows).rows), job, kernels)
    checkpoint_layers(model, fit.checkpointed_layers)

    child.phase("train")
    trainer = PackedTrainer(model, rows, validation, plan, job_dir / CHECKPOINTS, child)
    num_shown = 0 if settings.tracker == "none" else settings.tracked_completions
    trainer.track(open_board(job, job_dir, child), Completions(validation, num_shown, tokenizer, child))
    progress = trainer.run()
    if rank() > 0:
        return

    child.phase("save")
    with new_folder(job_dir / "adapter") as folder:
        save_adapter(model, job, folder)
    save_result(
        job,
        job_dir,
        "adapter",
        model,
        tokenizer,
        plan,
        progress,
        rows,
        material.num_samples,
        attention.name,
        kernels.name,
    )


def make_plan(job: Job, rows: Rows, micro_batch: int, *, flat: bool) -> Plan:
    """Decide steps, rate and evaluations; the sequences per step stay what the settings say.

    The micro-batch divides what each process has of them.
    """
    settings = job.settings
    num_steps = count_steps(len(rows), settings)
    per_rank = settings.micro_batch * settings.accumulation // num_ranks()
    return Plan(
        num_steps=num_steps,
        micro_batch=micro_batch,
        accumulation=per_rank // micro_batch,
        learning_rate=settings.learning_rate * (settings.continued_rate_share if job.continued else 1.0),
        warmup_steps=round(settings.warmup_share * num_steps),
        max_grad_norm=settings.max_grad_norm,
        weight_decay=settings.weight_decay,
        optimizer="paged_adamw_8bit" if settings.paged_optimizer and job.device == "cuda" else "adamw_8bit",
        adam_beta2=0.999,
        checkpoint_interval_s=settings.checkpoint_interval_s,
        eval_every=eval_interval(num_steps, settings),
        patience=settings.patience,
        min_improvement=settings.min_improvement,
        seed=job.seed,
        device=job.device,
        dtype=compute_dtype(settings),
        flat=flat,
    )
