"""The seven projections of a layer with their adapters: each input is kept once, products are added in place.

PEFT runs each projection by itself: q, k and v each cast and keep the input of all three, each adapter's output is
made, scaled and added in passes of its own, and its weights are kept again in the compute dtype. Here q, k and v
share one product x·[Aq; Ak; Av]ᵀ, as do gate and up; the second product is accumulated into the base's output, as
every gradient of an input is into one tensor; what silu(gate)·up is, the backward pass makes again from gate and up.
The parameters stay PEFT's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor
from torch.nn import functional

from daemon.training.fp8 import Fp8Linear
from daemon.training.kernels import Kernels

SHARING = (("q_proj", "k_proj", "v_proj"), ("o_proj",))


@dataclass(frozen=True, slots=True)
class Projection:
    """A frozen linear layer and the scale of its adapter."""

    base: Any
    scale: float

    def weight(self, dtype: torch.dtype) -> Tensor:
        """Return the weight, [out, in]; one of 4 or 8 bits is unpacked."""
        if isinstance(self.base, Fp8Linear):
            return self.base.unpack(dtype)
        weight = self.base.weight
        if isinstance(self.base, Linear4bit):
            weight = dequantize_4bit(weight.data, weight.quant_state)
        return weight.to(dtype)  # type: ignore[no-any-return]

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """Return the bias, [out], where there is one."""
        bias = self.base.bias
        return None if bias is None else bias.to(dtype)


Projections = Sequence[Projection]


def _project(x: Tensor, projections: Projections, down: Sequence[Tensor], up: Sequence[Tensor]) -> tuple[Any, ...]:
    """Return x·Wᵀ + b + scale·(x·Aᵀ)·Bᵀ of each projection, and x·Aᵀ of all side by side; x is [T, in]."""
    low = x @ torch.cat([*down]).to(x.dtype).T
    outs = []
    for one, part, weight in zip(projections, torch.split(low, [len(a) for a in down], 1), up, strict=True):
        out = functional.linear(x, one.weight(x.dtype), one.bias(x.dtype))
        outs.append(out.addmm_(part, weight.to(x.dtype).T, alpha=one.scale))
    return tuple(outs), low


def _project_back(
    grads: Sequence[Tensor],
    low: Tensor,
    projections: Projections,
    down: Sequence[Tensor],
    up: Sequence[Tensor],
    *,
    needs_x: bool = True,
) -> tuple[Any, Tensor, list[Tensor]]:
    """Return the gradients of x (None where it needs none), of x·Aᵀ and of every B, from those of the outputs."""
    ranks, dtype = [len(a) for a in down], low.dtype
    to_low = torch.empty_like(low)
    to_x: Tensor | None = None
    to_up = []
    for one, grad, part, to_part, weight in zip(
        projections, grads, torch.split(low, ranks, 1), torch.split(to_low, ranks, 1), up, strict=True
    ):
        to_part.addmm_(grad, weight.to(dtype), beta=0, alpha=one.scale)
        made = torch.empty(weight.shape, dtype=dtype, device=low.device)
        to_up.append(made.addmm_(grad.T, part, beta=0, alpha=one.scale).to(weight.dtype))
        if needs_x:
            base = one.weight(dtype)
            to_x = grad @ base if to_x is None else to_x.addmm_(grad, base)
    if to_x is not None:
        to_x.addmm_(to_low, torch.cat([*down]).to(dtype))
    return to_x, to_low, to_up


def _down_gradients(to_low: Tensor, x: Tensor, down: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradients of every A from those of x·Aᵀ."""
    return torch.split((to_low.T @ x).to(down[0].dtype), [len(a) for a in down])


class _Shared(torch.autograd.Function):
    """Several projections of one input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, projections: Projections, *adapters: Tensor) -> tuple[Tensor, ...]:
        num = len(projections)
        outs, low = _project(x.flatten(0, -2), projections, adapters[:num], adapters[num:])
        ctx.projections = projections
        ctx.save_for_backward(x, low, *adapters)
        return tuple(out.view(*x.shape[:-1], -1) for out in outs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, low, *adapters = ctx.saved_tensors
        num = len(ctx.projections)
        down, up = adapters[:num], adapters[num:]
        flat = [grad.flatten(0, -2) for grad in grads]
        to_x, to_low, to_up = _project_back(flat, low, ctx.projections, down, up, needs_x=ctx.needs_input_grad[0])
        to_down = _down_gradients(to_low, x.flatten(0, -2), down)
        return (None if to_x is None else to_x.view_as(x), None, *to_down, *to_up)


class _Mlp(torch.autograd.Function):
    """down(silu(gate(x)) · up(x)); the adapters come as three A and three B."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, projections: Projections, kernels: Kernels, *adapters: Tensor) -> Tensor:
        down, up = adapters[:3], adapters[3:]
        (gate, value), low = _project(x.flatten(0, -2), projections[:2], down[:2], up[:2])
        (out,), low_out = _project(kernels.swiglu(gate, value), projections[2:], down[2:], up[2:])
        ctx.projections, ctx.kernels = projections, kernels
        ctx.save_for_backward(x, gate, value, low, low_out, *adapters)
        return out.view_as(x)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, value, low, low_out, *adapters = ctx.saved_tensors
        down, up = adapters[:3], adapters[3:]
        outer = [grads[0].flatten(0, -2)]
        to_inner, to_low, to_b = _project_back(outer, low_out, ctx.projections[2:], down[2:], up[2:])
        to_gate, to_value, inner = ctx.kernels.swiglu_back(to_inner, gate, value)
        to_a = _down_gradients(to_low, inner, down[2:])
        del to_inner, inner  # before a weight is unpacked
        to_x, to_low, to_up = _project_back(
            [to_gate, to_value], low, ctx.projections[:2], down[:2], up[:2], needs_x=ctx.needs_input_grad[0]
        )
        to_down = _down_gradients(to_low, x.flatten(0, -2), down[:2])
        return (None if to_x is None else to_x.view_as(x), None, None, *to_down, *to_a, *to_up, *to_b)


class _Sharing:
    """Modules with the same input: the first that is called computes for all of them."""

    def __init__(self, modules: Sequence[Any]) -> None:
        self.modules = modules
        self.x: Tensor | None = None
        self.outs: dict[int, Tensor] = {}

    def forward(self, index: int, x: Tensor) -> Tensor:
        """Return the projection of one of the modules."""
        module = self.modules[index]
        if module.disable_adapters:
            return type(module).forward(module, x)  # type: ignore[no-any-return]
        if x is not self.x or index not in self.outs:
            self.x, self.outs = x, dict(enumerate(_apply(_Shared, x, self.modules)))
        out = self.outs.pop(index)
        if not self.outs:
            self.x = None  # not kept longer than somebody may ask
        return out


def _apply(function: Any, x: Tensor, modules: Sequence[Any], *extra: Any) -> Any:
    """Run a function with the adapter that is active."""
    name = modules[0].active_adapters[0]
    projections = tuple(Projection(module.base_layer, module.scaling[name]) for module in modules)
    weights = [getattr(module, part)[name].weight for part in ("lora_A", "lora_B") for module in modules]
    return function.apply(x, projections, *extra, *weights)


def share_inputs(model: Any, kernels: Kernels) -> None:
    """Make each decoder layer of a model with LoRA on all projections run them together, silu(gate)·up by `kernels`."""
    for layer in model.get_base_model().model.layers:
        for names in SHARING:
            sharing = _Sharing([getattr(layer.self_attn, name) for name in names])
            for index, module in enumerate(sharing.modules):
                module.forward = partial(sharing.forward, index)
        layer.mlp.forward = partial(_run_mlp, layer.mlp, kernels)


def _run_mlp(mlp: Any, kernels: Kernels, x: Tensor) -> Any:
    if mlp.gate_proj.disable_adapters:
        return type(mlp).forward(mlp, x)
    return _apply(_Mlp, x, (mlp.gate_proj, mlp.up_proj, mlp.down_proj), kernels)
