"""The GPUs' figures by NVML. Without a driver there are none, and a figure that a card does not tell is left out."""

import logging
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

import pynvml

from monitoring import metrics
from monitoring.families import LateGauge

log = logging.getLogger(__name__)
_MEGA: Final = 1_000_000


class Gpus:
    """The cards of this machine, as NVML numbers them; close it."""

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._lost: set[int] = set()
        try:
            pynvml.nvmlInit()
            self._open()
        except pynvml.NVMLError as error:
            log.debug("no GPU is measured: %s", error, extra={"event": "no_gpu"})

    def _open(self) -> None:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        for number in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            self._handles.append(handle)
            metrics.GPU_INFO.labels(str(number), _text(pynvml.nvmlDeviceGetName(handle)), driver).set(1)

    def measure(self) -> None:
        """Set every card's gauges; a card that does not answer any more is down, its last figures are dropped."""
        for number, handle in enumerate(self._handles):
            try:
                pynvml.nvmlDeviceGetMemoryInfo(handle)
            except pynvml.NVMLError as error:
                self._lose(number, error)
                continue
            self._lost.discard(number)
            metrics.GPU_UP.labels(str(number)).set(1)
            _measure(str(number), handle)

    def read(self) -> dict[str, float]:
        """Return what the cards tell at this moment, by `gpu0/power_watts` and so on; without a card nothing."""
        told = {}
        for number, handle in enumerate(self._handles):
            for gauge, ask in _FIGURES.items():
                name = next(iter(gauge.describe())).name.removeprefix("codelupe_gpu_")
                told[f"gpu{number}/{name}"] = _ask(ask, handle)
        return {name: value for name, value in told.items() if not math.isnan(value)}

    def _lose(self, number: int, error: Exception) -> None:
        metrics.GPU_UP.labels(str(number)).set(0)
        for gauge in _FIGURES:
            gauge.labels(str(number)).set(metrics.UNKNOWN)
        for clock in _CLOCKS:
            metrics.GPU_CLOCK.labels(str(number), clock).set(metrics.UNKNOWN)
        if number not in self._lost:
            self._lost.add(number)
            log.error("GPU %d does not answer: %s", number, error, extra={"event": "gpu_lost", "gpu": number})

    def close(self) -> None:
        """Give NVML back."""
        if self._handles:
            pynvml.nvmlShutdown()
            self._handles.clear()


def show_gpus() -> list[dict[str, Any]]:
    """Return what each card told last, as the metrics have it; what a card does not tell is not there."""
    cards: dict[str, dict[str, Any]] = {}
    for family in metrics.REGISTRY.restricted_registry(_SHOWN).collect():
        for sample in family.samples:
            card = cards.setdefault(sample.labels["gpu"], {"gpu": sample.labels["gpu"]})
            card[_SHOWN[sample.name]] = sample.labels.get("name", round(sample.value, 2))
    return list(cards.values())


def fetch_processes(uuid: str) -> set[int]:
    """Return the ids of the processes that compute on a card; none where the driver does not tell."""
    try:
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return {process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        _warn_of_silence(str(error))
        return set()


@cache
def _warn_of_silence(error: str) -> None:
    log.warning("the GPU does not tell who uses it: %s", error, extra={"event": "gpu_processes_unknown"})


def _measure(gpu: str, handle: Any) -> None:
    for gauge, ask in _FIGURES.items():
        gauge.labels(gpu).set(_ask(ask, handle))
    for clock, kind in _CLOCKS.items():
        metrics.GPU_CLOCK.labels(gpu, clock).set(_MEGA * _ask(partial(_clock_mhz, kind), handle))


def _clock_mhz(kind: int, handle: Any) -> float:
    return float(pynvml.nvmlDeviceGetClockInfo(handle, kind))


def _ask(ask: Callable[[Any], float], handle: Any) -> float:
    try:
        return ask(handle)
    except pynvml.NVMLError:  # not supported by this card, or not just now
        return metrics.UNKNOWN


def _text(answer: str | bytes) -> str:
    return answer.decode() if isinstance(answer, bytes) else answer


_CLOCKS: Final = {"sm": pynvml.NVML_CLOCK_SM, "memory": pynvml.NVML_CLOCK_MEM}
_FIGURES: Final[dict[LateGauge, Callable[[Any], float]]] = {
    metrics.GPU_MEMORY_BYTES: lambda handle: pynvml.nvmlDeviceGetMemoryInfo(handle).total,
    metrics.GPU_MEMORY_USED_BYTES: lambda handle: pynvml.nvmlDeviceGetMemoryInfo(handle).used,
    metrics.GPU_UTILIZATION: lambda handle: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
    metrics.GPU_TEMPERATURE: lambda handle: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
    metrics.GPU_TEMPERATURE_LIMIT: lambda handle: pynvml.nvmlDeviceGetTemperatureThreshold(
        handle, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
    ),
    metrics.GPU_POWER: lambda handle: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    metrics.GPU_POWER_LIMIT: lambda handle: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
}
_SHOWN: Final = {
    "codelupe_gpu_info": "name",
    "codelupe_gpu_up": "up",
    **{f"codelupe_gpu_{name}": name for name in ("memory_bytes", "memory_used_bytes", "utilization_ratio")},
    **{f"codelupe_gpu_{name}": name for name in ("temperature_celsius", "power_watts", "power_limit_watts")},
}
