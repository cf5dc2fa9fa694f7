"""The stock stack: transformers' Trainer, peft, bitsandbytes, as their documents put them together.

The same base in NF4, the same adapter, optimizer, rate and samples as ours, and as many samples a step. What is theirs:
`prepare_model_for_kbit_training`, the model's own loss, PEFT's layers, Trainer's random order. Settings chosen in their
favour: activations are kept (as ours are; `prepare_model_for_kbit_training` would recompute them unless told), SDPA,
fp32 (bf16 is emulated on CPUs without it), nothing logged, evaluated or saved.

- `stock_padded`: DataCollatorForSeq2Seq, which pads to the longest sample of a batch.
- `stock_packed`: DataCollatorWithFlattening, one row without padding, positions restarting at each sample.
- `stock_published`: `stock_padded` with the recomputation that `prepare_model_for_kbit_training` switches on by itself.
"""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from daemon.job import Job
from daemon.training.lora import TARGETS
from tests.bench.contest.stage import read_job, read_samples
from tests.bench.contest.turns import Turns


class Counting:
    """Mixed into a Trainer: counts the real tokens of its micro-batches."""

    num_tokens = 0

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Count, then run one micro-batch."""
        mask = inputs.get("attention_mask")
        self.num_tokens += inputs["input_ids"].numel() if mask is None else int(mask.sum())
        return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc, no-any-return]


class Taking(TrainerCallback):
    """Takes turns after the optimizer's steps."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.trainer = turns, Counting()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the step."""
        num_tokens, self.trainer.num_tokens = self.trainer.num_tokens, 0
        self.turns.step(state.global_step, state.max_steps, num_tokens)


class StockTrainer(Counting, Trainer):
    """transformers' Trainer."""


def train_stock(name: str, stage: Path, turns: Turns) -> None:
    """Train one epoch and save the adapter."""
    job = read_job(stage)
    torch.set_num_threads(job.settings.threads or 1)
    torch.manual_seed(job.seed)
    model = load_model(job)
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=name == "stock_published")
    model = get_peft_model(model, lora_config(job))
    samples = read_samples(stage)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(job.base)  # type: ignore[no-untyped-call]
    collator = DataCollatorWithFlattening() if name == "stock_packed" else DataCollatorForSeq2Seq(tokenizer)
    taking = Taking(turns)
    taking.trainer = StockTrainer(
        model=model,
        args=TrainingArguments(**arguments(job, stage, name, samples_per_step(job, samples))),
        train_dataset=samples,
        data_collator=collator,
        callbacks=[taking],
    )
    taking.trainer.train()
    model.save_pretrained(str(stage / name / "adapter"))


def samples_per_step(job: Job, samples: list[dict[str, Any]]) -> int:
    """Return how many samples have the tokens of one of our steps, on average."""
    settings = job.settings
    per_step = settings.micro_batch * settings.accumulation * settings.sequence_tokens
    return max(1, round(per_step * len(samples) / sum(len(sample["input_ids"]) for sample in samples)))


def load_model(job: Job) -> Any:
    """Load the shared base in NF4."""
    return AutoModelForCausalLM.from_pretrained(
        job.base,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
        dtype=torch.float32,
        device_map=job.device,
        attn_implementation="sdpa",
    )


def lora_config(job: Job) -> LoraConfig:
    """Return the shared adapter's shape."""
    settings = job.settings
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=TARGETS,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )


def arguments(job: Job, stage: Path, name: str, batch: int) -> dict[str, Any]:
    """Return the arguments that all Trainers share."""
    settings = job.settings
    return {
        "output_dir": str(stage / name),
        "use_cpu": job.device == "cpu",
        "num_train_epochs": 1,
        "per_device_train_batch_size": batch,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
        "warmup_steps": settings.warmup_share,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "optim": "adamw_8bit",
        "seed": job.seed,
        "bf16": False,
        "logging_strategy": "no",
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
