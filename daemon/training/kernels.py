"""Whose kernels compute the element-wise parts of a layer: torch's, Liger's or compiled ones, checked before use.

All have the functions of elementwise.py, which also stand in for those that fail or differ. Matrix products, the loss
and attention are none of theirs.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from daemon.training import elementwise
from daemon.training.child import Child

COMPILES_RIGHT = "2.11"  # torch before it compiles some traced backward passes to wrong gradients
PROBED_TOKENS, PROBED_WIDTHS = 35, (96, 160)  # tokens of a probe; its hidden and inner size
REASON_CHARS = 300  # of what a library raises: a compiler says it with pages of its code
_LIGER_FP32 = 1  # Liger's number of the casting mode `gemma`: all in fp32, rounded once

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Kernels:
    """Functions as in elementwise.py, under a name for people; all but the norm may overwrite what they are given."""

    name: str = "torch"
    rms_norm: Callable[[Tensor, Tensor, float], Pair] = elementwise.rms_norm
    rms_norm_back: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = elementwise.rms_norm_back
    rotate: Callable[[Tensor, Tensor, Tensor, Tensor], Pair] = elementwise.rotate
    rotate_back: Callable[[Tensor, Tensor, Tensor, Tensor], Pair] = elementwise.rotate_back
    swiglu: Callable[[Tensor, Tensor], Tensor] = elementwise.swiglu
    swiglu_back: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] = elementwise.swiglu_back


PLAIN = Kernels()


def choose_kernels(wanted: str, device: str, dtype: torch.dtype, child: Child) -> Kernels:
    """Return the wanted kernels (`torch`, `liger`, `compile`), or plain torch's with a note that says why not."""
    if wanted == "torch" and device == "cpu":
        return PLAIN
    makers = {"torch": make_fused, "liger": make_liger, "compile": make_compiled}
    try:
        kernels = makers[wanted]()
        fault = find_fault(kernels, device, dtype)
    except Exception as error:  # noqa: BLE001 - whatever a library raises is a reason to do without it
        fault = " ".join(f"{type(error).__name__}: {error}".split())[:REASON_CHARS]
    if fault is None:
        return kernels
    message = f"fused_kernels={wanted} is not used: {fault}"
    child.emit("note", note="kernels_passed_over", message=message)
    return PLAIN


def make_fused() -> Kernels:
    """Return torch's own, with its kernels of CUDA for the norm."""

    def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Pair:
        return torch.ops.aten._fused_rms_norm(x, x.shape[-1:], weight, eps)  # type: ignore[no-any-return] # noqa: SLF001

    def rms_norm_back(grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
        formula = torch.ops.aten._fused_rms_norm_backward  # noqa: SLF001 - the one that torch's rms_norm has
        to_x: Tensor = formula(grad, x, x.shape[-1:], inverse, weight, [True, False])[0]
        return to_x

    return Kernels(rms_norm=rms_norm, rms_norm_back=rms_norm_back)


def make_compiled() -> Kernels:
    """Return the plain functions compiled for rows of any length; raise RuntimeError where torch does it wrong."""
    if torch.__version__ < COMPILES_RIGHT:  # by number, not by letter: torch's string knows how
        raise RuntimeError(f"torch {torch.__version__} may compile to wrong gradients; take 2.11 or newer")
    names = [field.name for field in fields(Kernels) if field.name != "name"]
    made = {name: torch.compile(getattr(PLAIN, name), dynamic=True, fullgraph=True) for name in names}
    return Kernels(name="compile", **{name: _without_history(function) for name, function in made.items()})


def _without_history(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function tensors that say nothing of gradients: it would be compiled again for those that need one."""

    def run(*given: Any) -> Any:
        return function(*(one.detach() if isinstance(one, Tensor) else one for one in given))

    return run


def make_liger() -> Kernels:
    """Return Liger's; raise ImportError where liger-kernel or triton is not installed."""
    from liger_kernel.ops.rms_norm import rms_norm_backward, rms_norm_forward
    from liger_kernel.ops.rope import rope_backward, rope_forward
    from liger_kernel.ops.swiglu import swiglu_backward, swiglu_forward
    from liger_kernel.ops.utils import calculate_settings

    def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Pair:
        out, _, inverse, *_ = rms_norm_forward(x, weight, eps, 0.0, _LIGER_FP32, False)
        return out, inverse

    def rms_norm_back(grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
        to_x: Tensor = rms_norm_backward(
            grad.contiguous(),
            x.flatten(0, -2),
            weight,
            inverse,
            0.0,
            _LIGER_FP32,
            *calculate_settings(x.shape[-1]),
            in_place=False,
            row_mode=False,
            needs_dw=False,
        )[0]
        return to_x

    def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> Pair:
        query, key, *_ = rope_forward(query, key, cos, sin)
        return query, key

    def swiglu(gate: Tensor, up: Tensor) -> Tensor:
        product: Tensor = swiglu_forward(gate, up)[2]
        return product

    def swiglu_back(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        product = swiglu(gate, up)
        to_gate, to_up = swiglu_backward(gate, up, grad)
        return to_gate, to_up, product

    return Kernels("liger", rms_norm, rms_norm_back, rotate, rope_backward, swiglu, swiglu_back)


def find_fault(kernels: Kernels, device: str, dtype: torch.dtype) -> str | None:
    """Run all functions on small inputs, as a training does; say what differs from the plain ones in fp32, or None."""
    drawn = _draw(device, dtype)
    expected = _run(PLAIN, {name: tensor.float() for name, tensor in drawn.items()}, nullcontext())
    tolerance = 1e-5 if dtype == torch.float32 else 0.02  # of the largest value; two bf16 roundings are 0.008
    found = _run(kernels, drawn, torch.autocast(device, dtype) if dtype != torch.float32 else nullcontext())
    for what, tensor in found.items():
        worst = ((tensor.float() - expected[what]).abs().max() / expected[what].abs().max()).item()
        if not worst <= tolerance:
            return f"its {what} differs from plain torch's by {worst:.2%}"
    return None


def _draw(device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return inputs as in a packed row, [1, T, H], [1, heads, T, D] and [T, I], and gradients of their outputs."""
    draw, (hidden, inner) = torch.Generator().manual_seed(0), PROBED_WIDTHS

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(device, dtype)

    rows = {name: normal(1, PROBED_TOKENS, hidden) for name in ("x", "to norm")}
    heads = {name: (4 if "query" in name else 2) for name in ("query", "key", "to query", "to key")}
    turned = {name: normal(1, PROBED_TOKENS, num, 64).transpose(1, 2) for name, num in heads.items()}
    angles = torch.randn(1, PROBED_TOKENS, 32, generator=draw).repeat(1, 1, 2)
    circle = {"cos": angles.cos().to(device, dtype), "sin": angles.sin().to(device, dtype)}
    wide = {name: normal(PROBED_TOKENS, inner) for name in ("gate", "up", "to product")}
    return {"weight": normal(hidden), **rows, **turned, **circle, **wide}


def _run(kernels: Kernels, drawn: dict[str, Tensor], mixed: AbstractContextManager[Any]) -> dict[str, Tensor]:
    """Return what comes of the functions, by name; the forward ones in mixed arithmetic, as the model runs them."""
    one = {name: tensor.clone() for name, tensor in drawn.items()}
    with mixed:
        norm, inverse = kernels.rms_norm(one["x"], one["weight"], 1e-6)
        query, key = kernels.rotate(one["query"], one["key"], one["cos"], one["sin"])
        product = kernels.swiglu(one["gate"], one["up"])
    to_query, to_key = kernels.rotate_back(one["to query"], one["to key"], one["cos"], one["sin"])
    to_gate, to_up, again = kernels.swiglu_back(one["to product"], one["gate"], one["up"])
    return {
        "norm": norm,
        "norm's gradient": kernels.rms_norm_back(one["to norm"], one["x"], one["weight"], inverse),
        "query": query,
        "key": key,
        "query's gradient": to_query,
        "key's gradient": to_key,
        "silu(gate)·up": product,
        "silu(gate)·up made again": again,
        "gate's gradient": to_gate,
        "up's gradient": to_up,
    }
