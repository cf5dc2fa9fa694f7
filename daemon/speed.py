"""How well a training uses its device: operations per second, and their share of the device's peak (MFU)."""

from dataclasses import dataclass
from typing import Self

from daemon.config import TrainingSettings
from daemon.device import Device
from daemon.job import Event
from daemon.shapes import find_shape

# Dense bf16 operations per second with fp32 accumulation, from NVIDIA's data sheets. The first that matches counts.
_PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 5090": 209.5e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}


@dataclass(frozen=True, slots=True)
class Speed:
    """What one trained token costs, and what the device could do. None: not known.

    Recomputed forward passes are left out: they are work, but none that the model needs.
    """

    adapter_flops: float | None = None
    base_flops: float | None = None
    peak_flops: float | None = None

    @classmethod
    def of(cls, settings: TrainingSettings, device: Device) -> Self:
        """Return the costs of the configured model, and the peak of all devices that share its steps, alike ones."""
        shape, document = find_shape(settings), settings.sequence_tokens / 2
        if shape is None:
            return cls()
        return cls(
            adapter_flops=shape.lora_flops(settings.adapter_rank, document),
            base_flops=shape.pretrain_flops(document),
            peak_flops=next(
                (settings.num_devices * peak for name, peak in _PEAKS.items() if name in device.name), None
            ),
        )

    def add_to(self, event: Event, kind: str) -> Event:
        """Return a step's event with `flops` and `mfu`, as far as they are known; `kind` is the run's."""
        per_token = self.base_flops if kind == "base" else self.adapter_flops
        if event.get("event") != "step" or per_token is None or "tokens_per_s" not in event:
            return event
        flops = event["tokens_per_s"] * per_token
        return {**event, "flops": flops} | ({} if self.peak_flops is None else {"mfu": flops / self.peak_flops})
