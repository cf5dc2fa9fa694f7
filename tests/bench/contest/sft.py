"""TRL's SFTTrainer with the best settings that it has on a CPU.

Packing by best-fit decreasing (`bfd`, which sets `padding_free`), its chunked loss (the only one it has), activations
kept, SDPA, fp32 throughout: TRL turns the adapters of a quantised model into bf16, which CPUs without AVX512-BF16
emulate at a fraction of the speed, so they are turned back. A flattened batch is one row, and SDPA's mask is as large
as its square: so one packed sequence a micro-batch, accumulated, instead of all of a step in one.
"""

import os
from pathlib import Path

import torch

os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

from datasets import Dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from tests.bench.contest.stage import read_job, read_samples
from tests.bench.contest.stock import Counting, Taking, arguments, load_model, lora_config
from tests.bench.contest.turns import Turns


class CountingSft(Counting, SFTTrainer):
    """TRL's trainer."""


def train_trl(name: str, stage: Path, turns: Turns) -> None:
    """Train one epoch and save the adapter."""
    job = read_job(stage)
    settings = job.settings
    torch.set_num_threads(settings.threads or 1)
    torch.manual_seed(job.seed)
    os.environ["HF_DATASETS_CACHE"] = str(stage / "datasets")
    taking = Taking(turns)
    taking.trainer = trainer = CountingSft(
        model=load_model(job),
        args=SFTConfig(
            **arguments(job, stage, name, 1),
            gradient_accumulation_steps=settings.micro_batch * settings.accumulation,
            gradient_checkpointing=False,
            max_length=settings.sequence_tokens,
            packing=True,
            packing_strategy="bfd",
        ),
        train_dataset=Dataset.from_list(read_samples(stage)),
        processing_class=AutoTokenizer.from_pretrained(job.base),  # type: ignore[no-untyped-call]
        peft_config=lora_config(job),
        callbacks=[taking],
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trainer.train()
    trainer.model.save_pretrained(str(stage / name / "adapter"))
