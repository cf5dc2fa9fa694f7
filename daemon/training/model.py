"""What is done with a loaded model, base or adapted: its device and mode, its hidden states, its head."""

import contextlib
import ctypes
import gc
import os
from pathlib import Path
from typing import Any, Protocol

import torch
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor, nn

from daemon.config import TrainingSettings
from daemon.job import Job
from daemon.training.child import Failed
from daemon.training.data import ATTENTION_KEYS, Batch
from daemon.training.ranks import num_ranks, rank

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # malloc.h


class Model(Protocol):
    """Which base to load, and how: a job, or a question to complete."""

    @property
    def settings(self) -> TrainingSettings: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def base(self) -> str: ...  # noqa: D102
    @property
    def base_revision(self) -> str | None: ...  # noqa: D102
    @property
    def base_cache(self) -> Path | None: ...  # noqa: D102


def prepare_device(wanted: Model) -> None:
    """Fix the seed and the number of threads; let matrix products use TF32, and torch the device of this process.

    Raises:
        Failed: device, where the arithmetic is not to be had on it.
    """
    torch.set_num_threads(wanted.settings.threads or max(1, len(os.sched_getaffinity(0)) // num_ranks()))
    torch.manual_seed(wanted.settings.seed)
    if wanted.device == "cpu":
        if wanted.settings.compute_dtype == "float16":
            raise Failed(
                "device", "compute_dtype=float16 needs a GPU, whose gradients are scaled: use bfloat16 or float32"
            )
        _keep_freed_memory()
    else:
        torch.cuda.set_device(rank())
        torch.backends.cuda.matmul.allow_tf32 = True


def give_memory_back(device: str) -> None:
    """Free what nothing refers to any more, on the GPU too: what ran out of memory has left it behind."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def _keep_freed_memory() -> None:
    """Let malloc keep large blocks: each step takes the same ones, and fetching zeroed pages is a tenth of its time."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def device_name(job: Job) -> str:
    """Return `cpu` or the UUID of the GPU, which is what a device lock is named after.

    Raises:
        Failed: device, where the wanted one is not there.
    """
    if job.device == "cpu":
        return "cpu" if rank() == 0 else f"cpu-{rank()}"
    if not torch.cuda.is_available():
        raise Failed("device", "device 'cuda' is not to be had: no driver, or no CUDA build of torch; use 'cpu'")
    if torch.cuda.device_count() < num_ranks():
        there = torch.cuda.device_count()
        raise Failed(
            "device", f"num_devices={num_ranks()}, but {there} GPUs are in sight: set CODELUPE_NUM_DEVICES={there}"
        )
    return str(torch.cuda.get_device_properties(rank()).uuid)


def compute_dtype(settings: TrainingSettings) -> torch.dtype:
    """Return the arithmetic of the forward and backward pass."""
    dtype: torch.dtype = getattr(torch, settings.compute_dtype)
    return dtype


def keep_trainable(model: nn.Module) -> None:
    """Put a model in the one mode that it stays in, for training and evaluation alike.

    In eval mode bitsandbytes repacks 4-bit weights for inference on CPUs with AVX512-BF16; after that no gradient
    passes through them. Dropout is 0 and nothing else depends on the mode, so nobody needs eval mode; and should a
    library switch to it, the repacking is off.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def hidden_at_targets(model: Any, batch: Batch, dtype: torch.dtype) -> Tensor:
    """Return the last hidden states of the positions that have a target, [N, H].

    `use_cache=False` is what keeps packed documents apart: with a cache no block-diagonal mask is made.
    """
    extra = {key: batch[key] for key in ATTENTION_KEYS if key in batch}
    device = batch["input_ids"].device.type
    mixed = torch.autocast(device, dtype) if dtype != torch.float32 else contextlib.nullcontext()
    with mixed:
        out = decoder(model)(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False, **extra)
    hidden: Tensor = out.last_hidden_state.flatten(0, 1)
    return hidden.index_select(0, batch["target_index"])


def decoder(model: Any) -> Any:
    """Return the transformer without its head, with the adapters that sit inside it."""
    return _causal_model(model).base_model


def head(model: Any) -> Tensor:
    """Return the weight of the head, [V, H]."""
    weight: Tensor = _causal_model(model).lm_head.weight
    return weight


def _causal_model(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
