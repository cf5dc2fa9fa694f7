"""The attention kernel: flash-attn or torch's variable-length one where they work, else SDPA."""

import importlib.util
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from daemon.training.child import Child, Failed

# Names that transformers knows no mask for: so it makes none, nor asks the device whether rows are packed.
VARLEN, DOCUMENTS = "codelupe_varlen", "codelupe_documents"
AMPERE = (8, 0)  # the compute capability that both variable-length kernels ask for
PROBED = (33, 5, 26)  # tokens of the documents of a probe
TOLERANCE = 0.02  # of a probe's largest value; two bf16 roundings are 0.008


@dataclass(frozen=True, slots=True)
class Attention:
    """A kernel: its name for people, its name in transformers, and whether it takes flat packed rows."""

    name: str
    implementation: str
    flat: bool


SDPA = Attention("sdpa", "sdpa", flat=False)


def choose_attention(wanted: str, device: str, dtype: torch.dtype, child: Child) -> Attention:
    """Return the best kernel that works here, or the wanted one (`auto`: no certain one).

    Raises:
        Failed: device, where the wanted one is not there or does not work.
    """
    fast = device == "cuda" and dtype != torch.float32 and torch.cuda.get_device_capability() >= AMPERE
    available = []
    if fast and importlib.util.find_spec("flash_attn") is not None:
        available.append(Attention("flash", "flash_attention_2", flat=True))
    if fast and (varlen := find_varlen()) is not None:
        AttentionInterface.register(VARLEN, wrap_varlen(varlen))
        available.append(Attention("varlen", VARLEN, flat=True))
    AttentionInterface.register(DOCUMENTS, attend_documents)
    available.append(Attention("sdpa", DOCUMENTS, flat=True) if device == "cpu" else SDPA)
    if wanted != "auto":
        names = ", ".join(attention.name for attention in available)
        available = [attention for attention in available if attention.name == wanted]
        if not available:
            message = f"attention={wanted!r} is not to be had on {device} in {dtype}: use one of {names}"
            raise Failed("device", message)
    return choose_working(available, device, dtype, child)


def choose_working(available: Iterable[Attention], device: str, dtype: torch.dtype, child: Child) -> Attention:
    """Return the first kernel without a fault; note which ones have one, and raise Failed(device) where all have."""
    faults: list[str] = []
    for attention in available:
        fault = find_fault(attention, device, dtype)
        if fault is None:
            for message in faults:
                child.emit("note", note="attention_passed_over", message=message)
            return attention
        faults.append(f"attention {attention.name} is not used: {fault}")
    raise Failed("device", f"{'; '.join(faults)}; set CODELUPE_ATTENTION=auto, or sdpa")


def find_fault(attention: Attention, device: str, dtype: torch.dtype) -> str | None:
    """Run a kernel forward and backward on three packed documents; say what is wrong with it, or None.

    The documents' outputs and gradients must be those that plain attention over each alone gives.
    """
    if not attention.flat:  # torch's own, over masks of transformers' making
        return None
    draw = torch.Generator().manual_seed(0)
    drawn = [torch.randn(1, heads, sum(PROBED), 64, generator=draw).to(device, dtype) for heads in (4, 2, 2, 4)]
    borders = torch.tensor([0, *PROBED]).cumsum(0).to(device, torch.int32)
    boundaries = {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders}
    boundaries |= dict.fromkeys(("max_length_q", "max_length_k"), max(PROBED))  # type: ignore[arg-type]
    module = torch.nn.Module()
    module.is_causal, module.num_key_value_groups, module.layer_idx = True, 2, 0  # type: ignore[assignment]
    module.config = SimpleNamespace(_attn_implementation=attention.implementation)  # type: ignore[assignment]
    attend = ALL_ATTENTION_FUNCTIONS[attention.implementation]

    def run(kernel: Callable[..., Any], *, exact: bool) -> list[Tensor]:
        inputs = [tensor.float() if exact else tensor for tensor in drawn]
        given = [tensor.detach().requires_grad_() for tensor in inputs[:3]]
        out, _ = kernel(module, *given, None, dropout=0.0, scaling=0.125, sliding_window=None, **boundaries)
        return [out, *torch.autograd.grad(out, given, inputs[3].transpose(1, 2))]

    expected = run(attend_documents, exact=True)
    try:
        found = run(attend, exact=False)
    except Exception as error:  # noqa: BLE001 - whatever a kernel raises is a reason to take another one
        return f"{type(error).__name__}: {error}"
    for what, one, other in zip(("output", "query", "key", "value"), found, expected, strict=True):
        worst = ((one.float() - other).abs().max() / other.abs().max()).item()
        if not worst <= TOLERANCE:
            return f"its {what}{'' if what == 'output' else ' gradient'} differs from the reference by {worst:.1%}"
    return None


def attend_documents(
    _module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend by SDPA within each document: no mask, and nothing computed between documents. [1, heads, T, D] in."""
    lengths, grouped = cu_seq_lens_q.diff().tolist(), query.shape[1] != key.shape[1]
    outs = [
        functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in zip(*(torch.split(tensor, lengths, 2) for tensor in (query, key, value)), strict=True)
    ]
    return torch.cat(outs, 2).transpose(1, 2), None


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
    signature is asked, once. Before 2.12 grouped heads need not be asked for: the kernel takes them as they are, and
    where it did not, the probe would say so. Rotary tables in fp32 make queries and keys of another dtype than values.
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
        extra = dict(options)
        if grouped and query.shape[1] != key.shape[1]:
            extra["enable_gqa"] = True
        if scalable and scaling is not None:
            extra["scale"] = scaling
        flat = (tensor.to(value.dtype).squeeze(0).transpose(0, 1).contiguous() for tensor in (query, key, value))
        out = varlen(*flat, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, **extra)
        return out.unsqueeze(0), None

    return attend
