"""result.json: what a finished `pretrain` or `train` did."""

import platform
import resource
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from daemon.files import digest_folder, write_json
from daemon.job import Job, Result
from daemon.samples import tokenizer_digest
from daemon.training.progress import Plan, Progress
from daemon.training.rows import Rows
from daemon.training.start import read_start

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers")


def save_result(
    job: Job,
    job_dir: Path,
    made: str,
    model: Any,
    tokenizer: Tokenizer,
    plan: Plan,
    progress: Progress,
    rows: Rows,
    num_samples: int,
    attention: str,
    kernels: str = "torch",
) -> None:
    """Write result.json; `made` is the folder with what came out."""
    result = Result(
        steps=progress.step,
        steps_planned=plan.num_steps,
        tokens=progress.tokens,
        completion_tokens=progress.completion_tokens,
        seconds=round(progress.seconds, 3),
        tokens_per_s=round(progress.tokens / max(1e-6, progress.seconds), 1),
        start_s=read_start(job_dir),
        num_samples=num_samples,
        packing_density=round(rows.density(job.settings.sequence_tokens), 4),
        final_loss=progress.loss or 0.0,
        best_eval_loss=progress.best_loss,
        best_step=progress.best_step,
        num_evals=progress.num_evals,
        validation_loss=progress.validation_loss,
        validation_bits_per_byte=progress.validation_bits_per_byte,
        stopped_early=progress.stopped_early,
        peak_bytes=peak_bytes(job.device),
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        base_revision=getattr(model.config, "_commit_hash", None) or job.base_revision,
        tokenizer_digest=tokenizer_digest(tokenizer),
        attention=attention,
        kernels=kernels,
        micro_batch=plan.micro_batch,
        checkpointed_layers=plan.fit.checkpointed_layers if plan.fit else 0,
        planned_bytes=plan.fit.memory.total if plan.fit else 0,
        num_skipped=progress.num_skipped,
        num_out_of_memory=plan.num_out_of_memory,
        digests={f"{made}/{name}": digest for name, digest in digest_folder(job_dir / made).items()},
        versions={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    )
    write_json(job_dir / "result.json", result.model_dump())


def reset_peak(device: str) -> None:
    """Begin the peak anew: what loading took, or a try that ran out of memory, is not that of the training."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> int:
    """Return the peak of allocated device memory, or of the process's resident memory on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
