"""The machine's own figures once a second, in a thread: processors, memory, disk, GPUs. For Linux, from /proc."""

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from monitoring import metrics, record
from monitoring.gpu import Gpus

log = logging.getLogger(__name__)
_EVERY_S = 1.0
_JOIN_S = 2.0


@contextmanager
def measure_machine(home: Path, *, every_s: float = _EVERY_S) -> Iterator[None]:
    """Measure the machine, and the disk that `home` lies on, while the body runs."""
    stop = threading.Event()
    thread = threading.Thread(target=_measure, args=(home, stop, every_s), name="sensors", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_JOIN_S)  # a driver whose card is gone may never answer


def _measure(home: Path, stop: threading.Event, every_s: float) -> None:
    with closing(Gpus()) as gpus:
        steps: tuple[Callable[[], None], ...] = (
            Processors().measure,
            _measure_memory,
            partial(_measure_disk, home),
            gpus.measure,
        )
        failed: set[int] = set()
        while True:
            for number, step in enumerate(steps):
                try:
                    step()
                except Exception:
                    if number not in failed:  # once is enough: it would be every second
                        record.record_loop_error("sensors")
                        log.exception("a sensor cannot be read", extra={"event": "sensor_failed"})
                    failed.add(number)
                else:
                    failed.discard(number)
            if stop.wait(every_s):
                return


class Processors:
    """How busy the cores were between two looks."""

    def __init__(self) -> None:
        self._before = _read_cpu_times()

    def measure(self) -> None:
        """Set the share of busy time since the last look, and the load."""
        idle, total = _read_cpu_times()
        (idle_before, total_before), self._before = self._before, (idle, total)
        if total > total_before:
            busy = 1 - (idle - idle_before) / (total - total_before)
            metrics.MACHINE_CPU_BUSY.set(min(1.0, max(0.0, busy)))  # a kernel may take idle time back
        metrics.MACHINE_LOAD.set(os.getloadavg()[0])


def _read_cpu_times() -> tuple[int, int]:
    """Return idle and all time of all cores together, in ticks; waiting for a disk is idle."""
    first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    times = [int(number) for number in first.split()[1:9]]  # the guests' time after these is in user time already
    return times[3] + times[4], sum(times)


def _measure_memory() -> None:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    kibibytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    metrics.MACHINE_MEMORY_BYTES.set(kibibytes["MemTotal"] * 1024)
    metrics.MACHINE_MEMORY_AVAILABLE_BYTES.set(kibibytes["MemAvailable"] * 1024)


def _measure_disk(home: Path) -> None:
    usage = shutil.disk_usage(home)
    metrics.DISK_BYTES.set(usage.used + usage.free)  # without what is reserved for root
    metrics.DISK_FREE_BYTES.set(usage.free)
