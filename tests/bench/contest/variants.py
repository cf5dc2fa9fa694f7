"""What the GPU bench measures, in order: each variant is a shape, a stack and a plan. The most telling come first."""

from dataclasses import dataclass, field
from typing import Any

from daemon.config import TrainingSettings
from daemon.profiles import PROFILES
from daemon.shapes import SHAPES, Shape

TINY_SHAPE = Shape(2, 64, 2, 1, 32, 128, 512, tied=False)
_TINY: dict[str, Any] = {
    "compute_dtype": "float32",
    "lora_rank": 8,
    "lora_alpha": 16,
    "sequence_tokens": 64,
    "micro_batch": 1,
    "accumulation": 2,
    "threads": 1,
    "fused_kernels": "torch",
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One measurement, in a process of its own."""

    name: str
    size: str
    stack: str
    """`stock` or `ours`."""
    profile: str = "gpu-141gb"
    changes: dict[str, Any] = field(default_factory=dict)
    warmup_steps: int = 2
    steps: int = 5
    estimate_s: float = 50
    """Of all of it: with less time left it is dropped."""
    is_tiny: bool = False

    @property
    def shape(self) -> Shape:
        """The shape of the base."""
        return TINY_SHAPE if self.is_tiny else SHAPES[self.size]

    @property
    def settings(self) -> TrainingSettings:
        """The settings of a run, with the steps of the bench."""
        profile = PROFILES[self.profile]["daemon"]
        known = {name: value for name, value in profile.items() if name in TrainingSettings.model_fields}
        changes = {"tracker": "none", "checkpoint_interval_s": 1e9} | self.changes | (_TINY if self.is_tiny else {})
        return TrainingSettings.model_validate(known | changes)


# Steps of 16,384 tokens where the profile has 65,536: a step's rate is the same, and there is time for more of them.
_SHORT = {"micro_batch": 4, "accumulation": 1}
_STOCK = {"micro_batch": 1, "accumulation": 4}
VARIANTS = [
    Variant("stock", "14B", "stock", changes=_STOCK, warmup_steps=1, steps=3, estimate_s=70),
    Variant("ours", "14B", "ours", changes=_SHORT),
    Variant("stock_again", "14B", "stock", changes=_STOCK, warmup_steps=1, steps=3, estimate_s=70),
    Variant("gpu_32gb", "14B", "ours", profile="gpu-32gb", warmup_steps=1, steps=2, estimate_s=60),
    Variant("ours_bf16", "14B", "ours", changes=_SHORT | {"quantisation": "none", "micro_batch": 1, "accumulation": 4}),
    Variant("ours_7b", "7B", "ours", changes=_SHORT),
    Variant("ours_32b", "32B", "ours", changes=_SHORT | {"micro_batch": 1, "accumulation": 4}, estimate_s=80),
    Variant("ours_small_batch", "14B", "ours", changes=_SHORT | {"micro_batch": 1, "accumulation": 4}),
    Variant("ours_fp8", "14B", "ours", changes=_SHORT | {"quantisation": "fp8"}),
    Variant("ours_compiled", "14B", "ours", changes=_SHORT | {"fused_kernels": "compile"}, estimate_s=70),
]
