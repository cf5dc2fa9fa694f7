"""Verb `pretrain`: the base of `local:tiny`, made on this machine: tokenizer, then a small Qwen2 from scratch."""

import dataclasses
from pathlib import Path

import torch
from tokenizers import Tokenizer

from daemon.job import MEMBERS, Item, Job
from daemon.samples import plain_samples, train_tokenizer
from daemon.training.architectures import make_model, save_base
from daemon.training.attention import choose_attention
from daemon.training.board import open_board
from daemon.training.checkpoints import CHECKPOINTS
from daemon.training.child import Child, Failed
from daemon.training.failures import blaming
from daemon.training.folders import new_folder
from daemon.training.model import compute_dtype, prepare_device
from daemon.training.optimizer import full_optimizer
from daemon.training.report import save_result
from daemon.training.rows import PackedRows, build_samples_of, name_of, pack_rows, read_items
from daemon.training.train import make_plan
from daemon.training.trainer import PackedTrainer


def pretrain(job: Job, job_dir: Path, child: Child) -> None:
    """Train the tokenizer and the base on the members, and write base/ and result.json."""
    settings = job.settings
    prepare_device(job)
    attention = choose_attention(settings.attention, job.device, compute_dtype(settings), child)
    child.emit("attention", attention=attention.name)

    child.phase("tokenizer")
    members = list(read_items(job_dir / MEMBERS))
    if not members:
        raise Failed("disk", f"{job_dir / MEMBERS} is empty: it has lost its rows")
    tokenizer = train_tokenizer([item.content for item in members], settings.vocabulary)

    child.phase("tokenize")
    rows, num_samples = make_curriculum(members, tokenizer, job)

    child.phase("load")
    model = make_model(settings, tokenizer, attention.implementation).to(job.device)

    child.phase("train")
    plan = dataclasses.replace(
        make_plan(job, rows, settings.micro_batch, flat=attention.flat),
        learning_rate=settings.pretrain_learning_rate,
        optimizer=full_optimizer(settings),
        adam_beta2=0.95,
    )
    trainer = PackedTrainer(model, rows, None, plan, job_dir / CHECKPOINTS, child)
    trainer.track(open_board(job, job_dir, child))
    progress = trainer.run()

    child.phase("save")
    with new_folder(job_dir / "base") as folder:
        save_base(model, tokenizer, folder)
    save_result(job, job_dir, "base", model, tokenizer, plan, progress, rows, num_samples, attention.name)


def make_curriculum(members: list[Item], tokenizer: Tokenizer, job: Job) -> tuple[PackedRows, int]:
    """Pack plain text first, then sample frames: each member is in one of the two, once.

    Here every token is learned, prompts too: two thirds of a framed sample are prompt, and a base knows nothing yet.
    """
    settings = job.settings
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(job.seed)).tolist()
    num_framed = round(sum(len(item.content) for item in members) * settings.pretrain_frame_share)
    plain, framed = [], []
    for index in order:
        item = members[index]
        if num_framed > 0:
            samples = build_samples_of([item], tokenizer, settings, seed=job.seed)
            framed += [dataclasses.replace(sample, prompt_tokens=0) for sample in samples]
            num_framed -= len(item.content)
        else:
            with blaming([name_of(item)]):
                plain += plain_samples(item, tokenizer, settings)
    rows = [pack_rows(part, settings.sequence_tokens, seed=job.seed).rows for part in (plain, framed)]
    if not (plain or framed):
        raise Failed("data", f"the {len(members)} claimed rows give no sample", data_caused=True)
    return PackedRows(rows[0] + rows[1]), len(plain) + len(framed)
