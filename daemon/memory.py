"""How many bytes a run needs on its device, part by part, before anything is loaded."""

import re
from dataclasses import asdict, dataclass

from daemon.config import TrainingSettings
from daemon.shapes import Shape

# NF4 with double quantisation: 4 bits, and a scale of 8 bits and its share of the second level for each 64 weights.
_NF4_BITS = 4.127
_ADAPTER_BYTES = 4  # PEFT keeps adapters, and so their gradients, in fp32
_ADAM_BYTES = 2  # two states of 8 bits
_LOSS_ROWS = 512  # rows of logits that the chunked loss has at once
_LOSS_BYTES = 8  # of each of their values: as computed, in fp32, and as gradient
# While a layer is recomputed, its gradients lie beside its activations.
_ONE_LAYER_SHARE = 1.4
_OVERHEAD = {"cuda": 1.5 * 2**30, "cpu": 0.7 * 2**30}  # CUDA context and fragmentation; Python with torch
_SPARE = {"cuda": 0.05, "cpu": 0.2}  # left for the allocator's gaps; for everything else on the machine


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak of a training step."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(asdict(self).values())


def estimate_memory(shape: Shape, settings: TrainingSettings, device: str) -> Memory:
    """Return what a step of LoRA training takes with these settings on `cuda` or `cpu`."""
    element = 4 if settings.compute_dtype == "float32" else 2
    base_bits = _NF4_BITS if settings.quantisation == "nf4" else 8 * element
    num_lora = shape.num_lora(settings.lora_rank)
    return Memory(
        weights=round(shape.num_linear * base_bits / 8) + shape.num_embedding * element,
        adapters=num_lora * _ADAPTER_BYTES,
        gradients=num_lora * _ADAPTER_BYTES,
        optimizer=num_lora * _ADAM_BYTES,
        activations=_activations(shape, settings, element),
        logits=_LOSS_ROWS * shape.vocabulary * _LOSS_BYTES,
        overhead=round(_OVERHEAD[device]),
    )


def usable_bytes(memory_bytes: int, device: str) -> int:
    """Return how much of a device's memory a run may plan with."""
    return round(memory_bytes * (1 - _SPARE[device]))


def profile_memory_bytes(profile: str) -> int | None:
    """Return the memory of the card that a profile is for (`gpu-24gb`: 24 GiB); None for the others."""
    found = re.fullmatch(r"gpu-(\d+)gb", profile)
    return int(found[1]) << 30 if found else None


def find_fitting(shape: Shape, settings: TrainingSettings, device: str, limit: int) -> dict[str, object] | None:
    """Return the smallest change of settings with which a run fits, by name; the sequences per step stay. None: none.

    Tried in the order of what they cost: recomputation, smaller micro-batches, both, then a smaller adapter.
    """
    micro_batches = [settings.micro_batch]
    while micro_batches[-1] > 1:
        micro_batches.append(micro_batches[-1] // 2)
    for rank in (settings.lora_rank, 64, 16):
        for recompute in sorted({settings.recompute, True}):
            for micro_batch in micro_batches:
                num_sequences = settings.micro_batch * settings.accumulation
                change: dict[str, object] = {
                    "recompute": recompute,
                    "micro_batch": micro_batch,
                    "accumulation": num_sequences // micro_batch,
                    "lora_rank": min(rank, settings.lora_rank),
                }
                if estimate_memory(shape, settings.model_copy(update=change), device).total <= limit:
                    return {name: value for name, value in change.items() if value != getattr(settings, name)}
    return None


def _activations(shape: Shape, settings: TrainingSettings, element: int) -> int:
    """Kept for the backward pass: with recomputation the input of every layer and all of one layer, else all of all."""
    num_tokens = settings.micro_batch * settings.sequence_tokens
    layer = 3 * shape.hidden + 2 * shape.query + 2 * shape.key + 4 * shape.intermediate + 7 * settings.lora_rank
    if not settings.recompute:
        return num_tokens * element * shape.num_layers * layer
    return num_tokens * element * (shape.num_layers * shape.hidden + round(_ONE_LAYER_SHARE * layer))
