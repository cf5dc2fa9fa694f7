"""The optimizer: the numbers of bitsandbytes, also where it goes on from saved states, paged ones among them."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bitsandbytes.optim import AdamW8bit as Theirs
from torch import Tensor, nn

from daemon.job import Job
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Child
from daemon.training.material import make_rows
from daemon.training.optimizer import AdamW8bit
from daemon.training.rows import read_items
from daemon.training.train import make_plan

SIZES = [(64, 128), (8, 8)]  # states of 8 bits, and of 32
MakeJob = Callable[..., tuple[Job, Path]]


def make_weights() -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(*size, generator=draw)) for size in SIZES]


def learn(weights: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> list[Tensor]:
    """Take steps with gradients that depend on the step alone; return the weights."""
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=draw)
        optimizer.step()
    return [weight.detach().clone() for weight in weights]


def expected_after(num_steps: int) -> list[Tensor]:
    weights = make_weights()
    return learn(weights, Theirs(weights, lr=0.01), range(num_steps))


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize(("before", "after"), [(False, False), (True, True), (False, True), (True, False)])
def test_it_steps_as_bitsandbytes_does_and_goes_on_from_states_that_were_saved_paged_or_not(
    before: bool, after: bool
) -> None:
    weights = make_weights()
    optimizer = AdamW8bit(weights, lr=0.01, paged=before)
    learn(weights, optimizer, range(3))
    if before:  # as bitsandbytes marks them on a GPU
        for state in optimizer.state.values():
            state["state1"].is_paged = state["state2"].is_paged = True
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = AdamW8bit(weights, lr=0.01, paged=after)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    found = learn(weights, resumed, range(3, 6))
    assert all(map(torch.equal, found, expected_after(6)))
    for state in resumed.state.values():  # what is no page must not be taken for one: the driver would end the process
        assert not hasattr(state["state1"], "is_paged")


@pytest.mark.parametrize(
    ("device", "paged", "optimizer"),
    [("cpu", True, "adamw_8bit"), ("cuda", False, "adamw_8bit"), ("cuda", True, "paged_adamw_8bit")],
)
def test_states_are_paged_on_a_gpu_where_that_is_set(
    make_job: MakeJob, device: str, paged: bool, optimizer: str
) -> None:
    job, job_dir = make_job(2, fields={"device": device}, paged_optimizer=paged)
    rows, _ = make_rows(read_items(job_dir / "members.jsonl"), load_base_tokenizer(job), job, Child(lambda _: None))
    assert make_plan(job, rows, 1, flat=True).optimizer == optimizer
