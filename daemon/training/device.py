"""The lock that keeps a device to one child: an orphan, or another line's."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from daemon.training.child import Child


@contextlib.contextmanager
def hold_device(folder: Path, device: str, child: Child) -> Iterator[None]:
    """Hold the lock of a device; wait while another child still has it."""
    path = folder / f"device-{device}.lock"
    with path.open("w") as file:
        told = False
        while not _try_lock(file.fileno()):
            child.check_stop()
            if not told:
                child.emit("note", note="device_busy", message=f"waiting for {path}: another child uses {device}")
                told = True
            time.sleep(0.2)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
