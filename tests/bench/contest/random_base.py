"""A base of any Qwen2 shape with random weights, built on its device without the hub; stored as the settings say."""

from collections.abc import Callable
from typing import Any

import torch
from bitsandbytes.functional import quantize_4bit
from bitsandbytes.nn.modules import Linear4bit, Params4bit
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from daemon.config import TrainingSettings
from daemon.shapes import Shape
from daemon.training.fp8 import Fp8Linear
from daemon.training.model import compute_dtype, keep_trainable

_SPREAD = 0.02


def build_base(shape: Shape, settings: TrainingSettings, device: str, attention: str) -> Any:
    """Return the frozen base; no weight ever exists in more than one layer's full width."""
    dtype = compute_dtype(settings)
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        max_position_embeddings=max(4096, settings.sequence_tokens),
        tie_word_embeddings=shape.tied,
        use_cache=False,
        dtype=dtype,
    )
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=attention)  # type: ignore[no-untyped-call]
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(config=config)  # its buffers are no parameters
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, linear in list(part.named_children()):
                if isinstance(linear, nn.Linear) and settings.quantisation in _MAKERS:
                    setattr(part, name, _MAKERS[settings.quantisation](linear, device, dtype))
    _fill(model, device, dtype)
    model.tie_weights()
    model.requires_grad_(False)
    model.is_loaded_in_4bit = settings.quantisation == "nf4"
    keep_trainable(model)
    return model


def _make_four_bit(linear: nn.Linear, device: str, dtype: torch.dtype) -> Linear4bit:
    weight = torch.randn(linear.out_features, linear.in_features, device=device, dtype=dtype) * _SPREAD
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    made = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    made.weight = Params4bit(
        packed, quant_state=state, compress_statistics=True, quant_type="nf4", bnb_quantized=True, module=made
    )
    made.quant_state = state
    return made


def _make_fp8(linear: nn.Linear, device: str, dtype: torch.dtype) -> Fp8Linear:
    whole = nn.Linear(linear.in_features, linear.out_features, bias=False, device=device, dtype=dtype)
    nn.init.normal_(whole.weight, std=_SPREAD)
    made = Fp8Linear(whole)
    made.bias = linear.bias
    return made


_MAKERS: dict[str, Callable[[nn.Linear, str, torch.dtype], nn.Module]] = {"nf4": _make_four_bit, "fp8": _make_fp8}


def _fill(model: Any, device: str, dtype: torch.dtype) -> None:
    """Give every parameter that is not there yet its values: norms 1, biases 0, matrices random."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.is_meta:
                continue
            values = torch.empty(parameter.shape, device=device, dtype=dtype)
            if parameter.dim() > 1:
                values.normal_(0, _SPREAD)
            else:
                values.fill_(0.0 if name == "bias" else 1.0)
            setattr(module, name, nn.Parameter(values, requires_grad=False))
