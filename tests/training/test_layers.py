"""The parts between the projections: same outputs and gradients as transformers', with less to keep."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.nn import functional
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm, apply_rotary_pos_emb

from daemon.training.elementwise import rotate, rotate_back
from daemon.training.kernels import PLAIN, Kernels, make_fused
from tests.training.test_projections import difference

EPS = 1e-6
HALVES = [torch.bfloat16, torch.float16]


def draw(*shapes: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    draws = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=draws).to(dtype) for shape in shapes]


def make_norm(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return an input of uneven rows, one of them nearly 0, a weight, and a gradient of the output."""
    x, weight, grad = draw((2, 37, 96), (96,), (2, 37, 96), dtype=dtype)
    x[0, :5] *= 50
    x[1, 3] *= 1e-4
    return x, weight, grad


def norm_by(kernels: Kernels, x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    out, inverse = kernels.rms_norm(x, weight, EPS)
    return out, kernels.rms_norm_back(grad, x, weight, inverse)


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


@pytest.fixture(params=["plain", "fused"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    """The plain ones, and those of CUDA: torch's own definition of its kernel stands in for the kernel."""
    with torch.library._scoped_library("aten", "IMPL") as library:
        defined: Callable[..., Any] = decomposition_table[torch.ops.aten._fused_rms_norm_backward.default]
        library.impl("_fused_rms_norm_backward", defined, "CPU")
        yield PLAIN if request.param == "plain" else make_fused()


def test_a_norm_and_its_gradient_are_those_of_transformers(kernels: Kernels) -> None:
    given = make_norm(torch.float32)
    for found, expected in zip(norm_by(kernels, *given), norm_by_transformers(*given), strict=True):
        assert difference(found, expected) <= 1e-6


@pytest.mark.parametrize("dtype", HALVES)
def test_in_half_precision_they_are_at_least_as_near_to_the_exact_ones(kernels: Kernels, dtype: torch.dtype) -> None:
    given = make_norm(dtype)
    rows = zip(norm_by(kernels, *given), norm_by_transformers(*given), norm_exactly(*given), strict=True)
    for found, theirs, exact in rows:
        assert found.dtype == dtype
        assert difference(found, exact) <= 1.02 * difference(theirs, exact)


def make_heads(dtype: torch.dtype) -> list[Tensor]:
    """Return queries, keys, gradients of both, [B, heads, T, D], cosines and sines, [B, T, D]."""
    heads = [
        tensor.transpose(1, 2)
        for tensor in draw((2, 9, 4, 32), (2, 9, 2, 32), (2, 9, 4, 32), (2, 9, 2, 32), dtype=dtype)
    ]
    angles = torch.outer(torch.arange(9.0), 0.7 ** torch.arange(16.0)).repeat(2, 1, 2)
    return [*heads, angles.cos().to(dtype), angles.sin().to(dtype)]


def rotate_by_transformers(
    query: Tensor, key: Tensor, to_query: Tensor, to_key: Tensor, cos: Tensor, sin: Tensor
) -> list[Tensor]:
    given = [query.clone().requires_grad_(), key.clone().requires_grad_()]
    outs = apply_rotary_pos_emb(*given, cos, sin)
    return [*(out.detach() for out in outs), *torch.autograd.grad(outs, given, (to_query, to_key))]


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_rotary_embedding_and_its_gradients_are_those_of_transformers(dtype: torch.dtype) -> None:
    given = make_heads(dtype)
    query, key, to_query, to_key, cos, sin = given
    found = [*rotate(query, key, cos, sin), *rotate_back(to_query, to_key, cos, sin)]
    exact = rotate_by_transformers(*(tensor.double() for tensor in given))
    for one, theirs, right in zip(found, rotate_by_transformers(*given), exact, strict=True):
        assert one.dtype == dtype
        assert difference(one, right) <= max(1e-7, 1.02 * difference(theirs, right))
