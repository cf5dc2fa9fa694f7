"""Verb `train`: one adapter, from the claimed rows to adapter/ and result.json."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from daemon.fitting import Fit
from daemon.job import Job
from daemon.training.attention import Attention, choose_attention
from daemon.training.base import load_base
from daemon.training.base_files import load_base_tokenizer
from daemon.training.board import open_board
from daemon.training.checkpoints import CHECKPOINTS
from daemon.training.child import Child
from daemon.training.completions import Completions
from daemon.training.folders import new_folder
from daemon.training.kernels import Kernels, choose_kernels
from daemon.training.lora import attach_adapter, save_adapter
from daemon.training.material import Material, count_steps, eval_interval, make_material
from daemon.training.model import compute_dtype, prepare_device
from daemon.training.passes import checkpoint_layers, read_shape, train_fitting
from daemon.training.progress import Plan
from daemon.training.ranks import num_ranks, rank
from daemon.training.report import save_result
from daemon.training.rows import Rows
from daemon.training.trainer import PackedTrainer


def train(job: Job, job_dir: Path, child: Child, take: Callable[[], Material] | None = None) -> None:
    """Train in the fastest way that fits, and in a smaller one each time that memory does not suffice.

    `take` returns the material, where another process makes it (`ahead.py`).
    """
    settings = job.settings
    prepare_device(job)
    attention = choose_attention(settings.attention, job.device, compute_dtype(settings), child)
    child.emit("attention", attention=attention.name)
    kernels = choose_kernels(settings.fused_kernels, job.device, compute_dtype(settings), child)
    shape = read_shape(job)
    child.phase("tokenize")
    material = take() if take else make_material(job, job_dir, child)
    once = partial(train_once, job, job_dir, child, material, attention, kernels)
    train_fitting(job, job_dir, child, shape, attention.name, once)


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
        # A fresh optimizer's first step is as long as its rate, whatever the gradient: never at the peak.
        warmup_steps=max(settings.warmup_share > 0, round(settings.warmup_share * num_steps)),
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
