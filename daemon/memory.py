"""How many bytes a pass of training takes on its device, part by part, before anything is loaded. Pure.

Nothing here is fitted to measurements: each part is counted from the tensors that are there. What a layer keeps for its
backward pass is listed by name in `layer_bytes`, so that a reader can check it against the model's code; a test checks
it against what torch saves.
"""

import re
from dataclasses import asdict, dataclass

from daemon.config import TrainingSettings
from daemon.shapes import Shape

_FP32 = 4
_NF4_BLOCK, _NF4_SECOND_BLOCK = 64, 256  # weights under one scale of 8 bits; scales under one of 32
_ADAM8_BLOCK, _ADAM8_LEAST = 256, 4096  # elements under one scale of 32 bits; smaller tensors keep states of 32 bits
LOSS_ROWS = 512  # rows of logits that the chunked loss has at once (training/loss.py)
OVERHEAD = {"cuda": 1.5 * 2**30, "cpu": 0.7 * 2**30}  # CUDA context, libraries and gaps; Python with torch
_SPARE = {"cuda": 0.05, "cpu": 0.2}  # left alone: for what others do on the card; for everything else on the machine


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward and backward pass: what it works on, and how."""

    micro_batch: int
    sequence_tokens: int
    checkpointed_layers: int
    """The first so many layers keep their input alone, and are computed again in the backward pass."""
    attention: str
    """`flash`, `varlen`, `sdpa` (with masks), or `documents`: SDPA in one document after the other, as on a CPU."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all its sequences."""
        return self.micro_batch * self.sequence_tokens


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak of a training step."""

    weights: int
    """The frozen base."""
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    """Kept from the forward pass for the backward pass."""
    logits: int
    """Of two chunks of the loss, with the hidden states that all are made of."""
    backward: int
    """Gradients and recomputed tensors of the one layer that is at work."""
    overhead: int
    buckets: int = 0
    """Where DDP adds up the gradients of all devices: a second copy of them, as long as it lives. None on one."""

    @property
    def total(self) -> int:
        """All parts together; the logits are gone before the backward pass begins, so the larger of both counts."""
        together: int = sum(asdict(self).values())
        return together - min(self.logits, self.backward)


def estimate_memory(shape: Shape, settings: TrainingSettings, device: str, one_pass: Pass) -> Memory:
    """Return what LoRA training takes with these settings on `cuda` or `cpu`."""
    num_lora = shape.num_lora(settings.adapter_rank)
    return Memory(
        weights=weight_bytes(shape, settings),
        adapters=num_lora * _FP32,
        gradients=num_lora * _FP32,
        optimizer=optimizer_bytes(shape, settings.adapter_rank),
        activations=activation_bytes(shape, settings, one_pass),
        logits=logits_bytes(shape, settings, one_pass),
        backward=backward_bytes(shape, settings, one_pass),
        overhead=round(OVERHEAD[device]),
        buckets=num_lora * _FP32 if settings.num_devices > 1 else 0,
    )


def element_bytes(settings: TrainingSettings) -> int:
    """Return the bytes of a value in the arithmetic of the forward pass."""
    return 4 if settings.compute_dtype == "float32" else 2


def weight_bytes(shape: Shape, settings: TrainingSettings) -> int:
    """Return the bytes of the frozen base: projections as they are stored, all else as it is computed with."""
    element = element_bytes(settings)
    if settings.quantisation == "nf4":
        projections = shape.num_layers * sum(_nf4_bytes(wide * high) for wide, high in shape.projections)
    elif settings.quantisation == "fp8":
        projections = shape.num_layers * sum(wide * high + high * element for wide, high in shape.projections)
    else:
        projections = shape.num_linear * element
    return projections + (shape.num_embedding + shape.num_small) * element


def _nf4_bytes(num_weights: int) -> int:
    """Return the bytes of a matrix in NF4 with double quantisation: 4 bits, scales, scales of scales, two tables."""
    scales = -(-num_weights // _NF4_BLOCK)
    second = -(-scales // _NF4_SECOND_BLOCK)
    return -(-num_weights // 2) + scales + second * _FP32 + (16 + 256 + 1) * _FP32


def optimizer_bytes(shape: Shape, rank: int) -> int:
    """Return the bytes of AdamW's two states: of 8 bits with a scale for each block, of 32 for small tensors."""
    sizes = [size for wide, high in shape.projections for size in (rank * wide, rank * high)]
    per_layer = sum(
        2 * _FP32 * size if size < _ADAM8_LEAST else 2 * (size + _FP32 * -(-size // _ADAM8_BLOCK)) for size in sizes
    )
    return shape.num_layers * per_layer


def activation_bytes(shape: Shape, settings: TrainingSettings, one_pass: Pass) -> int:
    """Return what is kept from the forward pass: all that layers save, of checkpointed ones their input alone."""
    element, tokens = element_bytes(settings), one_pass.num_tokens
    checkpointed = min(one_pass.checkpointed_layers, shape.num_layers)
    layer = sum(layer_bytes(shape, settings, one_pass).values())
    kept = (shape.num_layers - checkpointed) * layer + checkpointed * tokens * shape.hidden * element
    if checkpointed == 0:
        # The first norm's input needs no gradient: nothing below it learns.
        kept -= tokens * (shape.hidden * element + _FP32)
    once = {
        "final norm": shape.hidden * element + _FP32,
        "cosines and sines": 2 * shape.head_size * element if checkpointed < shape.num_layers else 0,
        "gradient of the loss": shape.hidden * element,
        "places of the targets": 8,
    }
    return kept + tokens * sum(once.values())


def layer_bytes(shape: Shape, settings: TrainingSettings, one_pass: Pass) -> dict[str, int]:
    """Return what one layer keeps of a pass, in bytes by name.

    The norms keep their input as it is, and one number of fp32 (training/layers.py). Projections keep their input once
    for all that share it (q, k and v; gate and up; o has attention's result), and each the product with its A; frozen
    weights and biases ask for nothing. Attention keeps queries, keys, values and its result; SDPA has keys and values
    repeated for each head, and the mask as numbers. The MLP keeps gate and up: what comes of them is made again
    (training/projections.py).
    """
    element, tokens = element_bytes(settings), one_pass.num_tokens
    is_sdpa = one_pass.attention == "sdpa"
    keys = shape.query if is_sdpa else shape.key
    results = 2 if one_pass.attention == "documents" else 1  # each document's own, and all of them side by side
    per_token = {
        "norm inputs": 2 * shape.hidden * element + 2 * _FP32,
        "inputs of q, k, v and of gate, up": 2 * shape.hidden * element,
        "products with A": 7 * settings.adapter_rank * element,
        "queries, keys, values": (shape.query + 2 * keys) * element,
        "attention result": results * shape.query * element + shape.num_heads * _FP32,
        "mask": one_pass.sequence_tokens * element if is_sdpa else 0,
        "gate, up": 2 * shape.intermediate * element,
    }
    return {name: tokens * size for name, size in per_token.items()}


def logits_bytes(shape: Shape, settings: TrainingSettings, one_pass: Pass) -> int:
    """Return what the loss has at once: all hidden states, the chosen ones, and chunks of logits.

    Two chunks: the last one's logits, in fp32, are given up when the next one's are there. Where the arithmetic is
    another, so are what came of the last one and what the next one was before.
    """
    element = element_bytes(settings)
    hidden = 2 * one_pass.num_tokens * shape.hidden * element
    value = 2 * _FP32 + (2 * element if element < _FP32 else 0)
    return LOSS_ROWS * shape.vocabulary * value + hidden + mask_bytes(one_pass)


def backward_bytes(shape: Shape, settings: TrainingSettings, one_pass: Pass) -> int:
    """Return what the backward pass has at once beside all that is kept: the insides of one MLP, and one weight of it.

    First three tensors as wide as the MLP (silu(gate)·up, the gradients of gate and up), then both gradients and an
    unpacked weight; the gradients of its output and of its input take the place of what the loss and the last norm
    kept. Where every layer is checkpointed, the last one is computed again while all inputs are still there, its own
    among them; with fewer, the layers that kept everything have given it back by then.
    """
    element = element_bytes(settings)
    wide = one_pass.num_tokens * shape.intermediate * element
    unpacked = shape.hidden * shape.intermediate * element if settings.quantisation != "none" else 0
    again = 0
    if one_pass.checkpointed_layers >= shape.num_layers:
        again = sum(layer_bytes(shape, settings, one_pass).values()) - one_pass.num_tokens * shape.hidden * element
    return 2 * wide + max(wide, unpacked) + again + mask_bytes(one_pass)


def mask_bytes(one_pass: Pass) -> int:
    """Return what is held all the while for SDPA: who may see whom, and the part of it that keeps documents apart."""
    return 2 * one_pass.num_tokens * one_pass.sequence_tokens if one_pass.attention == "sdpa" else 0


def usable_bytes(memory_bytes: int, device: str, settings: TrainingSettings) -> int:
    """Return how much of a device's memory a run may plan with; processes on a CPU share the machine's."""
    share = settings.num_devices if device == "cpu" else 1
    usable = round(memory_bytes * (1 - _SPARE[device]) / share)
    return usable if settings.memory_gib is None else min(usable, round(settings.memory_gib * 2**30))


def profile_memory_bytes(profile: str) -> int | None:
    """Return the memory of the card that a profile is for (`gpu-24gb`: 24 GiB); None for the others."""
    found = re.fullmatch(r"gpu-(\d+)gb", profile)
    return int(found[1]) << 30 if found else None
