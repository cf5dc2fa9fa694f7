"""The frozen base: loaded once in NF4, run over packed rows."""

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Any, Protocol

import torch
from bitsandbytes.nn.modules import Linear4bit
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging

from daemon.config import TrainingSettings
from daemon.job import Job
from daemon.samples import BaseError, describe_missing, find_file, load_tokenizer, words_of
from daemon.training.attention import SDPA, Attention
from daemon.training.child import Failed
from daemon.training.data import ATTENTION_KEYS, Batch
from daemon.training.failures import classify

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


def prepare_device(wanted: Model) -> None:
    """Fix the seed and the number of threads; let matrix products use TF32."""
    torch.set_num_threads(wanted.settings.threads or len(os.sched_getaffinity(0)))
    torch.manual_seed(wanted.settings.seed)
    if wanted.device == "cpu":
        _keep_freed_memory()
    else:
        torch.backends.cuda.matmul.allow_tf32 = True


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
        return "cpu"
    if not torch.cuda.is_available():
        raise Failed("device", "device 'cuda' is not to be had: no driver, or no CUDA build of torch; use 'cpu'")
    return str(torch.cuda.get_device_properties(0).uuid)


def load_base(job: Model, attention: Attention = SDPA) -> Any:
    """Load the base model, frozen and quantised as the settings say; its config's `_commit_hash` is the hub's commit.

    Raises:
        Failed: base_missing, naming the model, where it was looked for, and what to set.
    """
    settings = job.settings
    folder = find_base_file(job, "config.json").parent
    commit = None if Path(job.base).expanduser().is_dir() else folder.name  # that of the hub's snapshot
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # for a terminal, and this is a log
    try:
        found: Any = AutoModelForCausalLM.from_pretrained(
            job.base,
            revision=commit or job.base_revision,  # all files of one commit, though the hub's may move on
            quantization_config=_quantisation(settings),
            dtype=compute_dtype(settings),
            device_map="cpu" if job.device == "cpu" else {"": 0},
            attn_implementation=attention.implementation,
            use_safetensors=True,
            trust_remote_code=False,
            use_cache=False,
            output_loading_info=True,
        )
    except Exception as error:  # what a damaged file makes the library raise can be anything
        if classify(error).reason != "exception":
            raise
        raise _refuse(job, find_damage(folder) or words_of(error)) from error
    model, loaded = found
    if loaded["missing_keys"]:  # transformers would go on with random numbers in their place
        names = ", ".join(sorted(loaded["missing_keys"])[:3])
        raise _refuse(job, f"the weights in {folder} lack {len(loaded['missing_keys'])} tensors: {names}, …")
    if not (hasattr(model, "model") and hasattr(model, "lm_head")):
        raise _refuse(job, f"{folder / 'config.json'} is of a {type(model).__name__}, not of the Qwen2 family")
    model.config._commit_hash = commit  # noqa: SLF001 - for the report; not every release sets it
    model.requires_grad_(False)
    keep_trainable(model)
    return model


def load_base_tokenizer(job: Model) -> Tokenizer:
    """Load the base's tokenizer; raise Failed(base_missing) as `load_base` would, only sooner."""
    find_base_file(job, "config.json")
    try:
        return load_tokenizer(job.base, job.base_revision)
    except BaseError as error:
        raise _missing(error) from error


def find_base_file(job: Model, filename: str) -> Path:
    """Return a file of the base, fetched if need be; raise Failed(base_missing) where it is not to be had."""
    try:
        return find_file(job.base, filename, job.base_revision)
    except BaseError as error:
        raise _missing(error) from error


def find_damage(folder: Path) -> str | None:
    """Return which file of weights in a folder cannot be read, and why; None where all can."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            return f"{file} is damaged: {words_of(error)}"
    return None


def _missing(error: BaseError) -> Failed:
    """Return the failure; a disk that did not take the download is the disk's."""
    cause = error.__cause__
    if cause is not None and (failure := classify(cause)).reason != "exception":
        return Failed(failure.reason, f"{error} ({failure.message})")
    return Failed("base_missing", str(error))


def _refuse(job: Model, detail: str) -> Failed:
    return Failed("base_missing", describe_missing(job.base, job.base_revision, detail))


def _quantisation(settings: TrainingSettings) -> BitsAndBytesConfig | None:
    if settings.quantisation == "none":
        return None
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(settings),
    )


def compute_dtype(settings: TrainingSettings) -> torch.dtype:
    """Return the arithmetic of the forward and backward pass."""
    return torch.bfloat16 if settings.compute_dtype == "bfloat16" else torch.float32


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
    return _causal_model(model).model


def head(model: Any) -> Tensor:
    """Return the weight of the head, [V, H]."""
    weight: Tensor = _causal_model(model).lm_head.weight
    return weight


def _causal_model(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
