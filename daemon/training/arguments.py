"""A plan in the words of transformers' Trainer."""

from pathlib import Path

import torch
from transformers import TrainingArguments

from daemon.training.progress import Plan


def make_arguments(plan: Plan, folder: Path) -> TrainingArguments:
    """Return the arguments for a plan; nothing is reported, evaluated or saved but what our hooks ask for."""
    args = TrainingArguments(
        output_dir=str(folder),
        use_cpu=plan.device == "cpu",
        fp16=plan.dtype == torch.float16,  # scales the gradients; the arithmetic is ours
        num_train_epochs=1,
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=plan.learning_rate,
        weight_decay=plan.weight_decay,
        max_grad_norm=plan.max_grad_norm,
        optim=plan.optimizer,
        adam_beta2=plan.adam_beta2,
        seed=plan.seed,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=plan.device != "cpu",
        accelerator_config={"non_blocking": plan.device != "cpu"},  # from pinned memory the copies wait for nothing
        dataloader_num_workers=0,  # a thread makes the batches, one step ahead: prefetch.py
    )
    if args.device.type == "cuda":  # to ask for the device is what makes it count the GPUs in sight
        args._n_gpu = 1  # noqa: SLF001 - no argument sets it
    return args
