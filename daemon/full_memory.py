"""What a training of all weights takes, in bytes and operations, before anything is loaded. Pure.

Counted as in `memory.py`, from the tensors that are there: weights, gradients and AdamW's states are in fp32, and so
are the stream between the layers, the norms and the head; all else is in the arithmetic of the forward pass.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from daemon.config import TrainingSettings
from daemon.memory import LOSS_ROWS, OVERHEAD, Memory, Pass, element_bytes, mask_bytes
from daemon.shapes import Shape, local_shape

_FP32 = 4


@dataclass(frozen=True, slots=True)
class FullShape(Shape):
    """A model whose weights are all trained: a Qwen2, or a GPT-2, all of whose heads have keys of their own."""

    kind: Literal["qwen2", "gpt2"] = "qwen2"
    positions: int = 0
    """Learned embeddings of positions, which a GPT-2 has."""

    @classmethod
    def from_config(cls, file: Path) -> Self:
        """Read a config.json of the Qwen2 family, or of a GPT-2. Raises KeyError where it is of another kind."""
        config = json.loads(file.read_text(encoding="utf-8"))
        if config["model_type"] != "gpt2":
            return cls(**asdict(Shape.from_config(file)))
        heads, hidden = config["n_head"], config["n_embd"]
        inner = config.get("n_inner") or 4 * hidden
        tied = bool(config.get("tie_word_embeddings", True))
        sizes = (config["n_layer"], hidden, heads, heads, hidden // heads, inner, config["vocab_size"], tied)
        return cls(*sizes, kind="gpt2", positions=config["n_positions"])

    @classmethod
    def of_settings(cls, settings: TrainingSettings, kind: Literal["qwen2", "gpt2"]) -> Self:
        """Return the shape of a base that is made from scratch."""
        shape = asdict(local_shape(settings))
        if kind == "gpt2":
            shape |= {"num_kv_heads": shape["num_heads"], "positions": settings.sequence_tokens}
        return cls(**shape, kind=kind)

    @property
    def layer_linear(self) -> int:
        """Parameters of one layer's matrices."""
        if self.kind == "gpt2":
            return 4 * self.hidden**2 + 2 * self.hidden * self.intermediate
        return self.num_linear // self.num_layers

    @property
    def num_weights(self) -> int:
        """All parameters."""
        if self.kind == "gpt2":
            small = 9 * self.hidden + self.intermediate
            outside = self.num_embedding + self.positions * self.hidden + 2 * self.hidden
            return self.num_layers * (self.layer_linear + small) + outside
        return self.num_linear + self.num_embedding + self.num_small

    def full_flops(self, document_tokens: float, *, recomputed: float = 0.0) -> float:
        """Return the operations to train every weight on one token; `recomputed` as for an adapter."""
        linear = 2 * self.num_layers * self.layer_linear
        attention = 2 * document_tokens * self.query * self.num_layers
        return (3 + recomputed) * (linear + attention) + 6 * self.num_head


def estimate_full(shape: FullShape, settings: TrainingSettings, device: str, one_pass: Pass) -> Memory:
    """Return what training all weights takes with these settings on `cuda` or `cpu`."""
    weights = shape.num_weights * _FP32
    activations = full_activation_bytes(shape, settings, one_pass)
    # In float16 on CUDA the optimizer, when all else is given back, makes the roots of all second moments at once.
    roots = weights if settings.compute_dtype == "float16" and device == "cuda" else 0
    return Memory(
        weights=weights,
        adapters=0,
        gradients=weights,
        optimizer=2 * weights,
        activations=activations,
        logits=LOSS_ROWS * shape.vocabulary * 2 * _FP32 + 2 * _stream_bytes(shape, one_pass) + mask_bytes(one_pass),
        backward=max(_backward_bytes(shape, settings, one_pass), roots - activations),
        overhead=round(OVERHEAD[device]),
        buckets=weights if settings.num_devices > 1 else 0,
    )


def full_activation_bytes(shape: FullShape, settings: TrainingSettings, one_pass: Pass) -> int:
    """Return what is kept from the forward pass: all that layers save, of checkpointed ones their input alone."""
    checkpointed = min(one_pass.checkpointed_layers, shape.num_layers)
    kept = (shape.num_layers - checkpointed) * sum(full_layer_bytes(shape, settings, one_pass).values())
    stream = _stream_bytes(shape, one_pass)
    has_rotary = shape.kind == "qwen2" and checkpointed < shape.num_layers
    rotary = 2 * one_pass.num_tokens * shape.head_size * _FP32 if has_rotary else 0
    once = _norm_tensors(shape) * stream + rotary  # the final norm's; cosines and sines
    loss = stream + shape.num_head * _FP32  # gradients of hidden states and head
    return kept + checkpointed * stream + once + loss + 2 * 8 * one_pass.num_tokens  # ids, and places of the targets


def full_layer_bytes(shape: FullShape, settings: TrainingSettings, one_pass: Pass) -> dict[str, int]:
    """Return what one layer keeps of a pass, in bytes by name.

    In fp32 the projections share their inputs; in less each casts the norm's output, and its weight, for itself. SDPA
    has keys and values repeated for each head, and the mask as numbers. The MLP keeps gate, silu(gate), up and their
    product; that of a GPT-2 what goes into its GELU and what comes out.
    """
    element, tokens = element_bytes(settings), one_pass.num_tokens
    is_cast, is_sdpa, is_gpt2 = element < _FP32, one_pass.attention == "sdpa", shape.kind == "gpt2"
    keys = shape.query if is_sdpa else shape.key
    num_inputs = 2 if is_gpt2 or not is_cast else 5
    per_token = {
        "norms": 2 * (_norm_tensors(shape) * shape.hidden * _FP32 + (2 if is_gpt2 else 1) * _FP32),
        "inputs of the projections": num_inputs * shape.hidden * element,
        "queries, keys, values": (shape.query + 2 * keys) * element,
        "attention result": shape.query * element + shape.num_heads * _FP32,
        "mask": one_pass.sequence_tokens * element if is_sdpa else 0,
        "inside of the MLP": (2 if is_gpt2 else 4) * shape.intermediate * element,
    }
    cast = {"weights as they are multiplied": shape.layer_linear * element} if is_cast else {}
    return {name: tokens * size for name, size in per_token.items()} | cast


def _backward_bytes(shape: FullShape, settings: TrainingSettings, one_pass: Pass) -> int:
    """Return what the backward pass has at once beside all that is kept: at the head, or inside of one MLP.

    At the head these are the gradients of it and of the hidden states once more, scaled; in an MLP three tensors as
    wide (two of a GPT-2), and the gradient of one weight before it is added; by then the loss and the last norm have
    given back what they kept. Where every layer is checkpointed, the last one is computed again.
    """
    element, stream = element_bytes(settings), _stream_bytes(shape, one_pass)
    at_head = shape.num_head * _FP32 + stream
    wide = (2 if shape.kind == "gpt2" else 3) * one_pass.num_tokens * shape.intermediate * element
    given_back = at_head + _norm_tensors(shape) * stream
    inside = wide + 2 * stream + shape.hidden * shape.intermediate * _FP32 - given_back
    if one_pass.checkpointed_layers >= shape.num_layers:
        inside += sum(full_layer_bytes(shape, settings, one_pass).values())
    return max(at_head, inside) + mask_bytes(one_pass)


def _norm_tensors(shape: FullShape) -> int:
    """Return how many tensors as wide as the stream a norm keeps: its input, of Qwen2 also that divided by its size."""
    return 1 if shape.kind == "gpt2" else 2


def _stream_bytes(shape: FullShape, one_pass: Pass) -> int:
    """Return the bytes of what goes from one layer to the next."""
    return one_pass.num_tokens * shape.hidden * _FP32
