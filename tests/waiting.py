"""Waiting for what another thread or process brings about: by looking, with a deadline that only a failure meets."""

import time
from collections.abc import Callable
from typing import TypeVar

# A machine that does three other things is ten times slower, and that is no failure.
DEADLINE_S = 180.0

T = TypeVar("T")


def wait_for(look: Callable[[], T], what: str = "it", *, timeout_s: float = DEADLINE_S) -> T:
    """Look until there is something true, and return it."""
    until = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < until, f"{what} did not happen within {timeout_s:.0f} s"
        time.sleep(0.01)
    return found
