"""A stand-in for the module of this name, which speaks with NVIDIA's driver: put this folder first on the path.

One card, steered by a JSON file that FAKE_NVML names (read at each call): {"celsius": 91, "lost": true, "power": null}.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

NVML_TEMPERATURE_GPU, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 0, 1
NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
DEFAULTS = {"cards": 1, "celsius": 61, "watts": 310.0, "used_gib": 27, "busy": 97, "lost": False, "missing": False}
DEFAULTS["processes"] = []  # ids of those that compute on it
GIB = 2**30


class NVMLError(Exception):
    """What every call may raise."""


def _card():
    file = os.environ.get("FAKE_NVML")
    card = DEFAULTS | (json.loads(Path(file).read_text()) if file and Path(file).exists() else {})
    if card["lost"]:
        raise NVMLError("GPU is lost")
    return card


def nvmlInit():
    if _card()["missing"]:
        raise NVMLError("NVML Shared Library Not Found")


def nvmlShutdown():
    pass


def nvmlSystemGetDriverVersion():
    return "580.65.06"


def nvmlDeviceGetCount():
    return _card()["cards"]


def nvmlDeviceGetHandleByIndex(number):
    return number


def nvmlDeviceGetHandleByUUID(_):
    return 0


def nvmlDeviceGetComputeRunningProcesses(_):
    return [SimpleNamespace(pid=pid) for pid in _card()["processes"]]


def nvmlDeviceGetName(_):
    return "NVIDIA GeForce RTX 5090"


def nvmlDeviceGetMemoryInfo(_):
    return SimpleNamespace(total=32 * GIB, used=_card()["used_gib"] * GIB)


def nvmlDeviceGetUtilizationRates(_):
    return SimpleNamespace(gpu=_card()["busy"])


def nvmlDeviceGetTemperature(_, kind):
    return _card()["celsius"]


def nvmlDeviceGetTemperatureThreshold(_, kind):
    return 90


def nvmlDeviceGetPowerUsage(_):
    watts = _card()["watts"]
    if watts is None:
        raise NVMLError("Not Supported")
    return 1000 * watts


def nvmlDeviceGetEnforcedPowerLimit(_):
    return 575_000


def nvmlDeviceGetClockInfo(_, kind):
    return {NVML_CLOCK_SM: 2400, NVML_CLOCK_MEM: 14001}[kind]
