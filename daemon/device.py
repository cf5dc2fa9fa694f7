"""Which device training uses, found without torch: the control half must start in under a second."""

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class DeviceError(RuntimeError):
    """The GPU that the profile needs cannot be used."""


@dataclass(frozen=True, slots=True)
class Device:
    """What a run occupies; `lease` names it for every daemon that shares the database."""

    kind: Literal["cpu", "cuda"]
    name: str
    memory_bytes: int
    lease: str

    @property
    def card(self) -> str | None:
        """The GPU's UUID; None on a CPU."""
        return self.lease.rpartition(":")[2] if self.kind == "cuda" else None


def detect_device(profile: str) -> Device:
    """Return the first GPU, or the CPU for `tiny`, and for `small` without a GPU.

    The first that CUDA_VISIBLE_DEVICES names, else the first of the machine by its bus, as the child counts them too.

    Raises:
        DeviceError: no driver, or one that does not answer, or that knows no such GPU.
    """
    has_gpu = shutil.which("nvidia-smi") is not None
    if profile.startswith("gpu-") and not has_gpu:
        raise DeviceError(
            f"profile {profile!r} needs an NVIDIA GPU and there is no nvidia-smi here: install the driver, or set "
            "CODELUPE_PROFILE=tiny"
        )
    if profile == "tiny" or not has_gpu:
        return Device("cpu", "CPU", host_memory_bytes(), f"device:{_machine()}:cpu")
    query = ["nvidia-smi", "--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits"]
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if wanted and not wanted.startswith("MIG"):  # a part of a card has no such query: its first card stands for it
        query.append(f"--id={wanted}")
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
        uuid, name, mebibytes = (part.strip() for part in answer.splitlines()[0].split(","))
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        said = f"about CUDA_VISIBLE_DEVICES={wanted} " if wanted else ""
        raise DeviceError(f"nvidia-smi does not answer {said}({error}): check the driver") from error
    return Device("cuda", name, int(mebibytes) << 20, f"device:{_machine()}:{uuid}")


def _machine() -> str:
    """Return an identity of this machine that outlives a change of its host name."""
    try:
        return Path("/etc/machine-id").read_text().strip() or socket.gethostname()
    except FileNotFoundError:
        return socket.gethostname()


def host_memory_bytes() -> int:
    """Return the memory of this machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise DeviceError("/proc/meminfo names no MemTotal")
