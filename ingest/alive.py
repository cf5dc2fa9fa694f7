"""The worker's signs of life, and waiting with them: who serves /health judges the worker by nothing else."""

import threading
import time
from typing import Protocol

# Much less than the silence that health takes for a stuck loop.
_MAX_SILENT_WAIT_S = 5.0


class Alive(Protocol):
    """Called as a sign of life, and with what the last statement of the loop showed of the database."""

    def __call__(self, *, database_up: bool | None = None, words: str = "", full_disk: str | None = None) -> None:
        """Take the sign; None says nothing of the database, nor of the disk, an empty path that there is space.

        `words` say what is wrong with the database.
        """


def say_nothing(*, database_up: bool | None = None, words: str = "", full_disk: str | None = None) -> None:
    """Be alive for nobody."""


def wait_alive(stop: threading.Event, wait_s: float, alive: Alive, *, slice_s: float = _MAX_SILENT_WAIT_S) -> bool:
    """Wait with a sign of life every `slice_s` seconds; return early, and True, when it is time to stop."""
    until = time.monotonic() + wait_s
    while True:
        alive()
        left_s = until - time.monotonic()
        if stop.wait(max(0.0, min(left_s, slice_s))):
            return True
        if left_s <= slice_s:
            return False
