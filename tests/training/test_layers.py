"""The parts between the projections: same outputs and gradients as transformers', with less to keep."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.nn import functional
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from daemon.training.elementwise import rms_norm, rms_norm_back
from tests.training.test_projections import difference

EPS = 1e-6


def draw(*shapes: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    draws = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=draws).to(dtype) for shape in shapes]


def make_norm(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return an input of uneven rows, one of them nearly 0, a weight, and a gradient of the output."""
    x, weight, grad = draw((2, 37, 96), (96,), (2, 37, 96), dtype=dtype)
    x[0, :5] *= 50
    x[1, 3] *= 1e-4
    return x, weight, grad


def norm_by_ours(x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    out, inverse = rms_norm(x, weight, EPS)
    return out, rms_norm_back(grad, x, weight, inverse)


def norm_by_transformers(x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    norm = Qwen2RMSNorm(len(weight), EPS)
    norm.weight = torch.nn.Parameter(weight, requires_grad=False)
    x = x.clone().requires_grad_()
    out = norm(x)
    return out.detach(), *torch.autograd.grad(out, x, grad)


def norm_exactly(x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    x = x.double().requires_grad_()
    out = functional.rms_norm(x, weight.shape, weight.double(), EPS)
    return out.detach(), *torch.autograd.grad(out, x, grad.double())


@pytest.fixture(params=["cpu", "cuda"])
def branch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Go each way: that of CUDA too, with torch's own definition of its kernel in the kernel's place."""
    with torch.library._scoped_library("aten", "IMPL") as library:
        if request.param == "cuda":
            defined: Callable[..., Any] = decomposition_table[torch.ops.aten._fused_rms_norm_backward.default]
            library.impl("_fused_rms_norm_backward", defined, "CPU")
            monkeypatch.setattr(torch.Tensor, "is_cuda", True)
        yield


def test_a_norm_and_its_gradient_are_those_of_transformers(branch: None) -> None:
    given = make_norm(torch.float32)
    for found, expected in zip(norm_by_ours(*given), norm_by_transformers(*given), strict=True):
        assert difference(found, expected) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_they_are_at_least_as_near_to_the_exact_ones(branch: None, dtype: torch.dtype) -> None:
    given = make_norm(dtype)
    rows = zip(norm_by_ours(*given), norm_by_transformers(*given), norm_exactly(*given), strict=True)
    for found, theirs, exact in rows:
        assert found.dtype == dtype
        assert difference(found, exact) <= 1.02 * difference(theirs, exact)
