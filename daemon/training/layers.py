"""What is between the projections of a layer, made to keep little for the backward pass.

transformers' norm turns its input into fp32 and keeps that. Ours keeps the input as it is, which the residual sum has
made anyway, and one number for each token.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from daemon.training.elementwise import rms_norm, rms_norm_back


class _Norm(torch.autograd.Function):
    """weight·x/rms(x) with a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, inverse = rms_norm(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        return rms_norm_back(grads[0], x, weight, inverse), None, None


def keep_less_of_norms(model: Any) -> None:
    """Make the norms of a model with a frozen base keep their input as it is."""
    decoder = model.get_base_model().model
    of_layers = [norm for layer in decoder.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    for norm in (*of_layers, decoder.norm):
        norm.forward = partial(_run_norm, norm)


def _run_norm(norm: Any, x: Tensor) -> Any:
    return _Norm.apply(x, norm.weight, norm.variance_epsilon)  # type: ignore[no-untyped-call]
