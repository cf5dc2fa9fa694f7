"""The fastest way to train that fits a device: how many layers are recomputed, how many sequences go at once. Pure.

A step of the optimizer stays what the settings say: `micro_batch` x `accumulation` sequences, whatever the passes it is
made of, and however many devices share it. Recomputing fewer layers saves arithmetic and takes memory; fewer sequences
per pass save memory, and a base in 4 or 8 bits is unpacked once more for each pass.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from daemon.config import TrainingSettings
from daemon.full_memory import FullShape, estimate_full
from daemon.memory import Memory, Pass, estimate_memory, usable_bytes
from daemon.shapes import Shape

# To unpack a 4-bit weight moves 2.5 bytes, one of 8 bits 7 (it is cast, then scaled in place); a card that makes 184
# operations in the time of one byte (H200: 790e12 a second beside 4.3e12) could have made so many instead.
_UNPACK_FLOPS = {"nf4": 460, "fp8": 1288, "none": 0}
# What memory ran out with was foreseen wrongly by no one knows how much: the next pass keeps at most so much of it.
_SMALLER = 0.75
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Fit:
    """A pass over the model that fits, as far as can be foreseen."""

    micro_batch: int
    checkpointed_layers: int
    accumulation: int
    """Passes of a step, on each device."""
    memory: Memory
    """Of one device."""
    flops: float
    """Operations per trained token, with what recomputing and unpacking cost."""

    def to_event(self) -> dict[str, Any]:
        """Return what is told of it."""
        return {
            "micro_batch": self.micro_batch,
            "accumulation": self.accumulation,
            "checkpointed_layers": self.checkpointed_layers,
            "planned_bytes": self.memory.total,
            "memory": asdict(self.memory),
        }


def find_fit(shape: Shape, settings: TrainingSettings, device: str, attention: str, limit: int) -> Fit | None:
    """Return the fastest way that the settings leave open and that takes at most `limit` bytes; None: none does."""
    fitting = (fit for fit in find_ways(shape, settings, device, attention) if fit.memory.total <= limit)
    return min(fitting, key=_cost, default=None)


def find_smallest(shape: Shape, settings: TrainingSettings, device: str, attention: str) -> Fit:
    """Return the way that takes the least memory of those that the settings leave open."""
    return min(find_ways(shape, settings, device, attention), key=lambda fit: fit.memory.total)


def find_smaller(shape: Shape, settings: TrainingSettings, device: str, attention: str, than: Fit) -> Fit | None:
    """Return the fastest way that keeps clearly less than one with which memory ran out; None where there is none."""
    smaller = (
        fit
        for fit in find_ways(shape, settings, device, attention)
        if fit.micro_batch <= than.micro_batch and fit.memory.activations <= _SMALLER * than.memory.activations
    )
    return min(smaller, key=_cost, default=None)


def find_ways(shape: Shape, settings: TrainingSettings, device: str, attention: str) -> Iterator[Fit]:
    """Yield each way that the settings leave open: micro-batches from theirs on, halved, and numbers of layers."""
    micro_batch = first_micro_batch(settings)
    while True:
        for layers in _layer_counts(shape, settings):
            yield make_fit(shape, settings, device, attention, micro_batch, layers)
        if micro_batch == 1:
            return
        micro_batch = largest_divisor(sequences_per_device(settings), micro_batch // 2)


def make_fit(
    shape: Shape, settings: TrainingSettings, device: str, attention: str, micro_batch: int, checkpointed_layers: int
) -> Fit:
    """Return what one way takes, in bytes and in operations, to train an adapter, or all weights of a FullShape."""
    kernel = "documents" if device == "cpu" else attention  # training/attention.py: it has no other there
    one_pass = Pass(micro_batch, settings.sequence_tokens, checkpointed_layers, kernel)
    recomputed, document = checkpointed_layers / shape.num_layers, settings.sequence_tokens / 2
    if isinstance(shape, FullShape):
        memory = estimate_full(shape, settings, device, one_pass)
        flops = shape.full_flops(document, recomputed=recomputed)
    else:
        memory = estimate_memory(shape, settings, device, one_pass)
        flops = shape.lora_flops(settings.adapter_rank, document, recomputed=recomputed)
        unpack = _UNPACK_FLOPS[settings.quantisation]
        flops += (2 + recomputed) * shape.num_linear * unpack / one_pass.num_tokens
    return Fit(
        micro_batch=micro_batch,
        checkpointed_layers=checkpointed_layers,
        accumulation=sequences_per_device(settings) // micro_batch,
        memory=memory,
        flops=flops,
    )


def find_change(
    shape: Shape, settings: TrainingSettings, device: str, attention: str, limit: int
) -> dict[str, Any] | None:
    """Return the smallest change of settings with which a run fits, by name; None: none does.

    Tried in the order of what they cost: recomputation, then a smaller adapter too.
    """
    for rank in (settings.lora_rank, 64, 16):
        for layers in (settings.checkpointed_layers, "auto"):
            change = {"checkpointed_layers": layers, "lora_rank": min(rank, settings.lora_rank)}
            if find_fit(shape, settings.model_copy(update=change), device, attention, limit):
                return {name: value for name, value in change.items() if value != getattr(settings, name)}
    return None


def find_misfit(shape: Shape, settings: TrainingSettings, device: str, memory_bytes: int) -> str:
    """Return why no run can fit a device, and what to set; empty where the smallest way takes at most all its memory.

    All of it, not what a run may plan with, nor what is free at this moment: what might work is tried.
    """
    least = find_smallest(shape, settings, device, likely_attention(settings, device)).memory.total
    return describe_misfit(shape, settings, device, memory_bytes) if least > memory_bytes else ""


def describe_misfit(shape: Shape, settings: TrainingSettings, device: str, memory_bytes: int) -> str:
    """Return why a run does not fit a device of that memory, and what to set."""
    attention, limit = likely_attention(settings, device), usable_bytes(memory_bytes, device, settings)
    least = find_smallest(shape, settings, device, attention).memory.total
    change = find_change(shape, settings, device, attention, limit)
    fix = "take a smaller CODELUPE_BASE_MODEL or a profile of a larger card"
    if change:
        fix = "set " + " ".join(f"CODELUPE_{name.upper()}={value}" for name, value in change.items())
    return f"needs {least / _GIB:.1f} GiB, {limit / _GIB:.1f} can be used on this {device}: {fix}"


def likely_attention(settings: TrainingSettings, device: str) -> str:
    """Return the kernel that the child will take where the settings leave it the choice."""
    if settings.attention != "auto":
        return settings.attention
    return "varlen" if device == "cuda" and settings.compute_dtype == "bfloat16" else "sdpa"


def sequences_per_device(settings: TrainingSettings) -> int:
    """Return the sequences of a step that each device works on."""
    return settings.micro_batch * settings.accumulation // settings.num_devices


def first_micro_batch(settings: TrainingSettings) -> int:
    """Return the largest micro-batch that the settings allow: it divides what each device has of a step."""
    return largest_divisor(sequences_per_device(settings), settings.micro_batch)


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number that is at most `most`."""
    return next(divisor for divisor in range(most, 0, -1) if number % divisor == 0)


def _layer_counts(shape: Shape, settings: TrainingSettings) -> range:
    """Return the numbers of checkpointed layers to choose from.

    `auto` never takes all of them: the last one is the first to be worked backward, so that recomputing it would save
    nothing and cost its input and its time.
    """
    wanted = settings.checkpointed_layers
    if wanted == "auto":
        return range(shape.num_layers)
    layers = shape.num_layers if wanted == "all" else min(wanted, shape.num_layers)
    return range(layers, layers + 1)


def _cost(fit: Fit) -> tuple[float, int]:
    return fit.flops, -fit.micro_batch
