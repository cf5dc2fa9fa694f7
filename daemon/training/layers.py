"""What is between the projections of a layer, norms and rotary embedding, made to keep little for the backward pass.

transformers' norm turns its input into fp32 and keeps that. Ours keeps the input as it is, which the residual sum has
made anyway, and one number for each token. The gradients of queries and keys are theirs turned back, in one pass.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from daemon.training.kernels import Kernels


class _Norm(torch.autograd.Function):
    """weight·x/rms(x) with a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, kernels: Kernels) -> Tensor:
        out, inverse = kernels.rms_norm(x, weight, eps)
        ctx.kernels = kernels
        ctx.save_for_backward(x, weight, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.kernels.rms_norm_back(grads[0], *ctx.saved_tensors), None, None, None


class _Rotation(torch.autograd.Function):
    """Queries and keys turned by the angles of their positions."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, kernels: Kernels
    ) -> tuple[Tensor, Tensor]:
        ctx.kernels = kernels
        ctx.save_for_backward(cos, sin)
        return kernels.rotate(query, key, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return *ctx.kernels.rotate_back(*grads, *ctx.saved_tensors), None, None, None


def use_kernels(model: Any, kernels: Kernels) -> None:
    """Make norms and attention of a model with a frozen base compute with these kernels, and keep less."""
    decoder = model.get_base_model().model
    norms = [decoder.norm]
    for layer in decoder.layers:
        norms += [layer.input_layernorm, layer.post_attention_layernorm]
        layer.self_attn.forward = partial(_attend, layer.self_attn, kernels)
    for norm in norms:
        norm.forward = partial(_run_norm, norm, kernels)


def _run_norm(norm: Any, kernels: Kernels, x: Tensor) -> Any:
    return _Norm.apply(x, norm.weight, norm.variance_epsilon, kernels)  # type: ignore[no-untyped-call]


def _attend(
    attention: Any,
    kernels: Kernels,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None,
    past_key_values: Any = None,
    **extra: Any,
) -> tuple[Tensor, Any]:
    """Attend as transformers' module does; that itself where there is a cache, which training has none of."""
    if past_key_values is not None:
        return type(attention).forward(  # type: ignore[no-any-return]
            attention, hidden_states, position_embeddings, attention_mask, past_key_values, **extra
        )
    tokens = hidden_states.shape[:-1]
    query, key, value = (
        project(hidden_states).view(*tokens, -1, attention.head_dim).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = _Rotation.apply(query, key, *position_embeddings, kernels)  # type: ignore[no-untyped-call]
    out, weights = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation](  # noqa: SLF001 - as the module asks
        attention,
        query,
        key,
        value,
        attention_mask,
        dropout=attention.attention_dropout if attention.training else 0.0,
        scaling=attention.scaling,
        sliding_window=attention.sliding_window,
        **extra,
    )
    return attention.o_proj(out.reshape(*tokens, -1).contiguous()), weights
