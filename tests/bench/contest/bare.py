"""The bare loop: our step without Trainer, events, stops or checkpoints. What is left of a step is arithmetic."""

from functools import partial
from pathlib import Path

import torch
from bitsandbytes.optim import AdamW8bit
from torch.optim.lr_scheduler import LambdaLR

from daemon.job import MEMBERS
from daemon.training.attention import choose_attention
from daemon.training.base import load_base
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Child
from daemon.training.data import collate
from daemon.training.lora import attach_adapter
from daemon.training.loss import sum_losses
from daemon.training.material import make_rows
from daemon.training.model import head, hidden_at_targets, prepare_device
from daemon.training.rows import read_items
from daemon.training.schedule import rate_share
from daemon.training.train import make_plan
from tests.bench.contest.stage import OURS, read_job
from tests.bench.contest.turns import Turns


def train_bare(_name: str, stage: Path, turns: Turns) -> None:
    """Train as ours does, step for step; each step of a stage's shapes is one micro-batch."""
    job = read_job(stage)
    prepare_device(job)
    rows, _ = make_rows(read_items(stage / OURS / MEMBERS), load_base_tokenizer(job), job, Child(lambda _: None))
    attention = choose_attention(job.settings.attention, job.device, torch.float32, Child(lambda _: None))
    plan = make_plan(job, rows, job.settings.micro_batch, flat=attention.flat)
    model = attach_adapter(load_base(job, attention), job)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = AdamW8bit(trained, lr=plan.learning_rate, betas=(0.9, plan.adam_beta2), weight_decay=plan.weight_decay)
    share = partial(rate_share, num_steps=plan.num_steps, warmup_steps=plan.warmup_steps)
    schedule = LambdaLR(optimizer, share)
    for step in range(plan.num_steps):
        batch = collate(rows.rows[step * plan.micro_batch : (step + 1) * plan.micro_batch], flat=plan.flat)
        losses = sum_losses(hidden_at_targets(model, batch, plan.dtype), head(model), batch["targets"])
        (losses / len(batch["targets"])).backward()
        torch.nn.utils.clip_grad_norm_(trained, plan.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        turns.step(step + 1, plan.num_steps, batch["num_tokens"])
