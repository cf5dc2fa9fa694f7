"""The shared projections are PEFT's: same outputs, same gradients, same parameters, with less to keep."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from daemon.job import Job
from daemon.samples import Sample
from daemon.training.base import load_base
from daemon.training.data import collate
from daemon.training.kernels import PLAIN, Kernels
from daemon.training.lora import TARGETS, attach_adapter, restore_state, trainable_state
from daemon.training.loss import sum_losses
from daemon.training.model import head, hidden_at_targets, keep_trainable
from daemon.training.passes import checkpoint_layers
from tests.training.test_rows import make_sample

MakeJob = Callable[..., tuple[Job, Path]]
ROWS: list[list[Sample]] = [[make_sample(60, 10, 1), make_sample(40, 0, 2)], [make_sample(90, 30, 3)]]


def make_pair(make_job: MakeJob, kernels: Kernels = PLAIN, **settings: Any) -> tuple[Any, Any]:
    """Return our model and PEFT's own with the same weights, none of them 0."""
    job, _ = make_job(1, **settings)
    ours = attach_adapter(load_base(job), job, kernels)
    state = {name: torch.randn_like(weight) * 0.05 for name, weight in trainable_state(ours).items()}
    config = LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS, task_type="CAUSAL_LM")
    theirs = get_peft_model(load_base(job), config)
    keep_trainable(theirs)
    for model in (ours, theirs):
        restore_state(model, state)
    return ours, theirs


def learn(
    model: Any, dtype: torch.dtype = torch.float32, rows: list[list[Sample]] = ROWS
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the hidden states of one batch, and the gradients of its mean loss."""
    batch = collate(rows, flat=False)
    hidden = hidden_at_targets(model, batch, dtype)
    (sum_losses(hidden, head(model), batch["targets"]) / len(batch["targets"])).backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return hidden.detach(), gradients


def difference(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize("quantisation", ["nf4", "fp8", "none"])
@pytest.mark.parametrize("layers", [0, 1])
def test_outputs_and_all_gradients_are_those_of_peft(make_job: MakeJob, quantisation: str, layers: int) -> None:
    ours, theirs = make_pair(make_job, quantisation=quantisation)
    checkpoint_layers(ours, layers)
    (out, gradients), (expected_out, expected) = learn(ours), learn(theirs)
    torch.testing.assert_close(out, expected_out, rtol=1e-6, atol=1e-5)
    assert gradients.keys() == expected.keys()
    assert len(gradients) == 14
    for name, gradient in gradients.items():
        assert (gradient - expected[name]).abs().max() <= 1e-6, name
        assert difference(gradient, expected[name]) <= 1e-5, name


def test_in_bfloat16_they_are_as_near_to_the_exact_ones_as_those_of_peft(make_job: MakeJob) -> None:
    ours, theirs = make_pair(make_job, compute_dtype="bfloat16", quantisation="none")
    exact, _ = make_pair(make_job, quantisation="none")
    restore_state(exact, trainable_state(ours))
    (out, gradients), (their_out, their_gradients) = (learn(model, torch.bfloat16) for model in (ours, theirs))
    exact_out, exact_gradients = learn(exact)
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    assert difference(out, exact_out) <= 1.2 * difference(their_out, exact_out)
    errors = [
        sum(difference(made[name], gradient) for name, gradient in exact_gradients.items())
        for made in (gradients, their_gradients)
    ]
    assert errors[0] <= 1.2 * errors[1]


@pytest.mark.parametrize(("compute_dtype", "share"), [("float32", 0.9), ("bfloat16", 0.8)])
def test_less_is_kept_for_the_backward_pass(make_job: MakeJob, compute_dtype: str, share: float) -> None:
    dtype = torch.float32 if compute_dtype == "float32" else torch.bfloat16
    kept = [count_kept_bytes(model, dtype) for model in make_pair(make_job, compute_dtype=compute_dtype)]
    assert kept[0] <= share * kept[1]


def count_kept_bytes(model: Any, dtype: torch.dtype) -> int:
    """Return the bytes of all that the forward pass keeps, each memory once, the model's own weights not counted."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, Tensor] = {}  # keeping them keeps their addresses

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_at_targets(model, collate(ROWS, flat=False), dtype)
    return sum(tensor.untyped_storage().nbytes() for at, tensor in kept.items() if at not in weights)


def test_a_switched_off_adapter_leaves_the_base(make_job: MakeJob) -> None:
    ours, theirs = make_pair(make_job)
    with torch.no_grad(), ours.disable_adapter(), theirs.disable_adapter():
        found, expected = (
            hidden_at_targets(model, collate(ROWS, flat=False), torch.float32) for model in (ours, theirs)
        )
    assert difference(found, expected) <= 1e-6
    with torch.no_grad():
        assert difference(hidden_at_targets(ours, collate(ROWS, flat=False), torch.float32), expected) > 0.01
