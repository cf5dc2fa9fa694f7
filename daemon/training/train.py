"""Verb `train`: one adapter, from the claimed rows to adapter/ and result.json."""

import gc
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path

import torch
from tokenizers import Tokenizer

from daemon.config import TrainingSettings
from daemon.fitting import Fit, find_smaller
from daemon.job import MEMBERS, VALIDATION, Item, Job
from daemon.samples import Sample
from daemon.training.attention import Attention, choose_attention
from daemon.training.base import load_base, load_base_tokenizer
from daemon.training.board import open_board
from daemon.training.child import Child, Failed
from daemon.training.completions import Completions
from daemon.training.data import PackedRows, Rows, build_samples_of, pack_rows, read_items
from daemon.training.evaluate import choose_pieces
from daemon.training.failures import OutOfMemory
from daemon.training.folders import new_folder
from daemon.training.lora import attach_adapter, save_adapter
from daemon.training.model import compute_dtype, prepare_device
from daemon.training.passes import checkpoint_layers, choose_pass, describe_pass, last_progress, read_shape
from daemon.training.progress import Plan
from daemon.training.ranks import num_ranks, rank
from daemon.training.report import save_result
from daemon.training.trainer import PackedTrainer

CHECKPOINTS = "checkpoints"
EVALS_PER_RUN = 8  # at least so many, however short the run
VALIDATION_PIECES = 2  # of one file: else a single long one could be all that is measured


def train(job: Job, job_dir: Path, child: Child) -> None:
    """Train in the fastest way that fits, and in a smaller one each time that memory does not suffice."""
    settings = job.settings
    attention = choose_attention(settings.attention, job.device, compute_dtype(settings), child)
    child.emit("attention", attention=attention.name)
    shape, last = read_shape(job), last_progress(job_dir / CHECKPOINTS)
    fit = choose_pass(job, shape, attention.name, last)
    num_out_of_memory = last.num_out_of_memory if last else 0
    while True:
        child.emit("plan", **fit.to_event())
        try:
            return train_once(job, job_dir, child, attention, fit, num_out_of_memory)
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
        child.emit("note", note="out_of_memory", message=f"going on with {describe_pass(fit)}")


def train_once(
    job: Job, job_dir: Path, child: Child, attention: Attention, fit: Fit, num_out_of_memory: int = 0
) -> None:
    """Read, tokenize, load, train, save."""
    settings = job.settings
    prepare_device(job)

    child.phase("tokenize")
    tokenizer = load_base_tokenizer(job)
    rows, num_samples = make_rows(read_items(job_dir / MEMBERS), tokenizer, job, child)
    plan = make_plan(job, rows, fit.micro_batch, flat=attention.flat)
    plan = replace(plan, fit=fit, num_out_of_memory=num_out_of_memory)
    validation = choose_validation(read_items(job_dir / VALIDATION), tokenizer, settings, rows.num_tokens, plan)

    child.phase("load")
    model = attach_adapter(load_base(job, attention, child.note), job)
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
    save_result(job, job_dir, "adapter", model, tokenizer, plan, progress, rows, num_samples, attention.name)


def make_rows(items: Iterable[Item], tokenizer: Tokenizer, job: Job, child: Child) -> tuple[PackedRows, int]:
    """Build and pack the samples of every epoch; the epochs follow one another, each in its own order.

    The pieces that give no sample are counted, and a note says how many and why.
    """
    settings, members = job.settings, list(items)
    dropped: Counter[str] = Counter()
    rows, num_samples = [], 0
    for seed in range(job.seed, job.seed + settings.epochs):
        samples = list(
            build_samples_of(members, tokenizer, settings, seed=seed, on_drop=lambda reason: dropped.update([reason]))
        )
        num_samples += len(samples)
        rows += pack_rows(samples, settings.sequence_tokens, seed=seed).rows
    if dropped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))
        child.emit("note", note="pieces_dropped", message=f"{reasons}; {num_samples:,} samples were made")
    if not rows:
        raise Failed("data", f"the {len(members)} claimed rows give no sample", data_caused=True)
    return PackedRows(rows), num_samples


def make_plan(job: Job, rows: Rows, micro_batch: int, *, flat: bool) -> Plan:
    """Decide steps, rate and evaluations; the sequences per step stay what the settings say."""
    settings = job.settings
    per_step = settings.micro_batch * settings.accumulation
    num_steps, per_rank = math.ceil(len(rows) / per_step), per_step // num_ranks()
    micro_batch = next(size for size in range(micro_batch, 0, -1) if per_rank % size == 0)
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
        eval_every=max(1, min(settings.eval_interval_steps, num_steps // EVALS_PER_RUN)),
        patience=settings.patience,
        min_improvement=settings.min_improvement,
        seed=job.seed,
        device=job.device,
        dtype=compute_dtype(settings),
        flat=flat,
    )


def choose_validation(
    items: Iterable[Item], tokenizer: Tokenizer, settings: TrainingSettings, train_tokens: int, plan: Plan
) -> PackedRows | None:
    """Take held-out samples, by hash, until all evaluations together cost the share that the settings allow.

    A file gives at most VALIDATION_PIECES of its samples, these by hash too.

    A trained token costs a forward and a backward pass, an evaluated one a forward pass. What is computed again counts
    for nothing: another way to make the passes must not change what a run is judged on.
    """
    num_evals = 1 + math.ceil(plan.num_steps / plan.eval_every)
    budget = settings.eval_share * train_tokens * 2 / num_evals
    chosen: list[Sample] = []
    by_hash = sorted(items, key=lambda item: item.sha256)
    samples = build_samples_of(by_hash, tokenizer, settings, seed=None)
    of_items = (choose_pieces(pieces, VALIDATION_PIECES) for _, pieces in groupby(samples, attrgetter("item_id")))
    for sample in chain.from_iterable(of_items):
        if chosen and budget < len(sample.input_ids):
            break
        budget -= len(sample.input_ids)
        chosen.append(sample)
    return pack_rows(chosen, settings.sequence_tokens) if chosen else None
