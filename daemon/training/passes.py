"""How the model is passed over: chosen for the memory that is there, and applied to its layers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from daemon.device import host_memory_bytes
from daemon.files import write_json
from daemon.fitting import Fit, find_fit, find_smaller, find_smallest, make_fit
from daemon.full_memory import FullShape
from daemon.job import SMALLER, Job
from daemon.memory import usable_bytes
from daemon.samples import describe_missing
from daemon.shapes import Shape, describe_other_family, find_other_family
from daemon.training.base_files import find_base_file
from daemon.training.checkpoints import CHECKPOINTS, find_checkpoint
from daemon.training.child import Child, Failed
from daemon.training.failures import OutOfMemory
from daemon.training.model import decoder, give_memory_back
from daemon.training.progress import PROGRESS, Progress, read_smaller
from daemon.training.ranks import least, num_ranks, rank

S = TypeVar("S", bound=Shape)
Train = Callable[[Fit, int], None]
"""Trains with passes made so, after memory ran out so many times; raises OutOfMemory where it does again."""


def last_progress(checkpoints: Path) -> Progress | None:
    """Return what the newest whole checkpoint says of how far the run is."""
    newest = find_checkpoint(checkpoints)
    return None if newest is None else Progress.model_validate_json((newest / PROGRESS).read_text())


def choose_pass(job: Job, shape: Shape, attention: str, last: Progress | None) -> Fit:
    """Return how the last child worked, else the fastest way that fits, else the one that takes the least.

    Processes that train together plan for the device with the least free memory: all of them make the same passes.
    """
    settings = job.settings
    # A checkpoint without the number is of a version that knew only all layers or none.
    if last is not None and last.checkpointed_layers is not None:
        return make_fit(shape, settings, job.device, attention, last.micro_batch, last.checkpointed_layers)
    limit = usable_bytes(least(_free_bytes(job.device), job.device), job.device, settings)
    found = find_fit(shape, settings, job.device, attention, limit)
    return found or find_smallest(shape, settings, job.device, attention)


def read_shape(job: Job) -> Shape:
    """Return the shape of the base; raise Failed(base_missing) where no adapter can be trained on it."""
    if family := find_other_family(find_base_file(job, "config.json")):
        raise Failed("base_missing", describe_other_family(job.base, family))
    return _read_config(job, Shape.from_config)


def read_full_shape(job: Job) -> FullShape:
    """Return the shape of the base; raise Failed(base_missing) where it is neither of the Qwen2 family nor a GPT-2."""
    return _read_config(job, FullShape.from_config)


def _read_config(job: Job, read: Callable[[Path], S]) -> S:
    file = find_base_file(job, "config.json")
    try:
        return read(file)
    except (KeyError, TypeError, ValueError) as error:
        detail = f"{file} is damaged, or not of the Qwen2 family ({type(error).__name__}: {error})"
        raise Failed("base_missing", describe_missing(job.base, job.base_revision, detail)) from error


def train_fitting(job: Job, job_dir: Path, child: Child, shape: Shape, attention: str, train: Train) -> None:
    """Train in the fastest way that fits, and in a smaller one each time that memory does not suffice.

    Processes that train together cannot be told of it within a step: the one whose memory ran out leaves the smaller
    way in SMALLER and fails, and `launch` begins anew with all of them.

    Raises:
        Failed: out_of_memory, where no smaller way is left, or all processes have to begin anew.
    """
    settings, last, agreed = job.settings, last_progress(job_dir / CHECKPOINTS), read_smaller(job_dir)
    begins_anew = agreed is not None and (last is None or last.num_out_of_memory < agreed.num_out_of_memory)
    last = agreed if begins_anew else last
    fit = choose_pass(job, shape, attention, last)
    num_out_of_memory = last.num_out_of_memory if last else 0
    if begins_anew:
        _tell_smaller(child, fit)
    while True:
        child.emit("plan", **fit.to_event())
        try:
            return train(fit, num_out_of_memory)
        except OutOfMemory as error:
            smaller = find_smaller(shape, settings, job.device, attention, than=fit)
            if smaller is None:
                child.emit("note", note="out_of_memory", message="not even one sequence per forward pass fits")
                raise Failed("out_of_memory", f"not even one sequence per forward pass fits: {error}") from error
            num_out_of_memory += 1
            if num_ranks() > 1:
                _leave_word(job_dir, smaller, num_out_of_memory)
                raise Failed("out_of_memory", f"device {rank()}: {describe_pass(fit)} do not fit") from error
            fit = smaller
        give_memory_back(job.device)
        _tell_smaller(child, fit)


def _leave_word(job_dir: Path, fit: Fit, num_out_of_memory: int) -> None:
    """Write how all processes are to begin anew; two whose memory runs out in the same step write the same."""
    ways = Progress(
        micro_batch=fit.micro_batch,
        checkpointed_layers=fit.checkpointed_layers,
        num_out_of_memory=num_out_of_memory,
    )
    write_json(job_dir / SMALLER, ways.model_dump())


def _tell_smaller(child: Child, fit: Fit) -> None:
    child.note("out_of_memory", f"going on with {describe_pass(fit)}")


def checkpoint_layers(model: Any, num_layers: int) -> None:
    """Let the first layers keep their input alone and be computed again in the backward pass, the others keep all.

    The first ones: by the time they are computed again, the others have given back what they kept. Nothing in a layer
    draws random numbers, so none have to be put back.
    """
    compute_again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    body = decoder(model)
    for index, layer in enumerate(body.h if hasattr(body, "h") else body.layers):  # a GPT-2's, or any other's
        layer.gradient_checkpointing = index < num_layers
        layer._gradient_checkpointing_func = compute_again  # noqa: SLF001 - transformers' switch: all, or every n-th


def describe_pass(fit: Fit) -> str:
    """Return a way to go on, in words."""
    return f"{fit.micro_batch} sequences per forward pass and {fit.checkpointed_layers} layers recomputed"


def _free_bytes(device: str) -> int:
    """Return the memory that no other process holds: of the GPU, or all of the machine's."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else host_memory_bytes()
