"""The attention kernel: flash-attn when installed, else torch's variable-length one, else SDPA."""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from daemon.training.child import Failed

VARLEN = "codelupe_varlen"
AMPERE = (8, 0)  # the compute capability that both variable-length kernels ask for


@dataclass(frozen=True, slots=True)
class Attention:
    """A kernel: its name for people, its name in transformers, and whether it takes flat packed rows."""

    name: str
    implementation: str
    flat: bool


SDPA = Attention("sdpa", "sdpa", flat=False)


def choose_attention(wanted: str, device: str, compute_dtype: str) -> Attention:
    """Return the best kernel that is there, or the wanted one; raise Failed(device) if that one is not."""
    fast = device == "cuda" and compute_dtype == "bfloat16" and torch.cuda.get_device_capability() >= AMPERE
    available = [SDPA]
    if fast and (varlen := find_varlen()) is not None:
        AttentionInterface.register(VARLEN, wrap_varlen(varlen))
        available.insert(0, Attention("varlen", VARLEN, flat=True))
    if fast and importlib.util.find_spec("flash_attn") is not None:
        available.insert(0, Attention("flash", "flash_attention_2", flat=True))
    if wanted == "auto":
        return available[0]
    for attention in available:
        if attention.name == wanted:
            return attention
    names = ", ".join(attention.name for attention in available)
    raise Failed("device", f"attention={wanted!r} is not to be had on {device} in {compute_dtype}: use one of {names}")


def find_varlen() -> Callable[..., Any] | None:
    """Return torch's variable-length attention, or None before torch 2.10."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def wrap_varlen(varlen: Callable[..., Any]) -> Callable[..., tuple[Tensor, None]]:
    """Return `varlen` as transformers calls attention: [1, heads, T, D] in, [1, T, heads, D] out.

    The way to ask for a causal mask and for grouped heads changed between torch 2.10, 2.11 and 2.12, so the
    signature is asked, once.
    """
    parameters = inspect.signature(varlen).parameters
    options: dict[str, Any] = {"is_causal": True} if "is_causal" in parameters else {"window_size": (-1, 0)}
    grouped, scalable = "enable_gqa" in parameters, "scale" in parameters

    def attend(
        _module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        _mask: Tensor | None,
        *,
        cu_seq_lens_q: Tensor,
        max_length_q: int,
        scaling: float | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        groups = query.shape[1] // key.shape[1]
        if groups > 1 and not grouped:
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        extra = dict(options)
        if groups > 1 and grouped:
            extra["enable_gqa"] = True
        if scalable and scaling is not None:
            extra["scale"] = scaling
        flat = (tensor.squeeze(0).transpose(0, 1).contiguous() for tensor in (query, key, value))
        out = varlen(*flat, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, **extra)
        return out.unsqueeze(0), None

    return attend
