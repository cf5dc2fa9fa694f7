"""The shapes that contestants train: settings of the model, its data and its steps, the same for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.config import TrainingSettings
from daemon.profiles import PROFILES

_TINY = {name: value for name, value in PROFILES["tiny"]["daemon"].items() if name in TrainingSettings.model_fields} | {
    "tracker": "none",
    "checkpoint_interval_s": 1e9,
}
# 85 M parameters in 12 layers and 16 M of tied embeddings; sequences and adapter of the profile `small`.
_HUNDRED_MILLION = {
    "hidden_size": 768,
    "num_layers": 12,
    "intermediate_size": 2304,
    "vocabulary": 20_480,
    "sequence_tokens": 2048,
    "max_chars": 8000,
    "learning_rate": 2e-4,
}
_MICRO = {
    "hidden_size": 64,
    "num_layers": 1,
    "intermediate_size": 128,
    "vocabulary": 512,
    "sequence_tokens": 256,
    "max_chars": 600,
    "lora_rank": 8,
    "lora_alpha": 16,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What is trained, and how it is measured. Characters are those of whole files."""

    settings: TrainingSettings
    train_chars: int
    """Characters that every contestant trains on, once."""
    held_out_chars: int
    """Characters on which the loss is measured afterwards."""
    tokenizer_chars: int
    """Characters of further files, which the tokenizer is made of."""
    warmup_steps: int
    """Optimizer steps before the first that is timed."""
    rounds: int
    """Turns that each contestant has; the median counts."""


def _shape(chars: tuple[int, int, int], warmup_steps: int, settings: Mapping[str, object] = {}) -> Shape:
    return Shape(TrainingSettings.model_validate(_TINY | settings), *chars, warmup_steps, rounds=3)


SHAPES = {
    "tiny": _shape((170_000, 20_000, 2_000_000), 6),
    "100m": _shape((110_000, 12_000, 2_000_000), 1, _HUNDRED_MILLION),
}
QUICK = {"micro": _shape((6_000, 1_000, 50_000), 1, _MICRO)}
