"""The processes of one training, one for each device: which of them this is, and what they agree on."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from daemon.training.child import Stopped


def rank() -> int:
    """Return the number of this process; 0 writes events, checkpoints and results, and is the only one without."""
    return int(os.environ.get("RANK", "0"))


def num_ranks() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def add_up(values: Sequence[float], device: torch.device | str) -> list[float]:
    """Return the sum of each value over all processes; each calls it, with as many values."""
    if num_ranks() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return [float(value) for value in sums.tolist()]


def least(value: int, device: str) -> int:
    """Return the smallest value of all processes; each calls it, before any other exchange or after."""
    if num_ranks() == 1:
        return value
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    found = torch.tensor(value, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MIN)
    return int(found)


def meet() -> None:
    """Wait for the others."""
    if num_ranks() > 1:
        distributed.barrier()


@contextlib.contextmanager
def parting() -> Iterator[None]:
    """End the exchange with the others once all are done, or asked to stop.

    After any other error nobody waits for anybody.
    """
    try:
        yield
    except Stopped:
        _part()
        raise
    _part()


def _part() -> None:
    if num_ranks() > 1 and distributed.is_initialized():
        distributed.destroy_process_group()


class Objective(nn.Module):
    """A model together with its loss: what DDP must call, so that it sees which gradients will come."""

    def __init__(self, model: Any, loss: Callable[[Any, dict[str, Any], float], Tensor]) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, inputs: dict[str, Any], num_targets: float) -> Tensor:
        """Return the loss of one micro-batch."""
        return self._loss(self.model, inputs, num_targets)


def share_gradients(model: Any, loss: Callable[[Any, dict[str, Any], float], Tensor]) -> nn.Module:
    """Return what computes the loss, and averages the gradients over all processes in its backward pass.

    It adds them up in buckets of its own. Gradients that are views of these would save nothing where a step has several
    passes: they are set to none after it, and those of the first passes are made apart.
    """
    return DistributedDataParallel(Objective(model, loss), broadcast_buffers=False)
