"""Waiting for what another thread or process brings about: by looking, with a deadline that only a failure meets."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

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


def close(engine: Engine) -> None:
    """Dispose of an engine once no thread uses it: a connection in use would not be closed with the others."""
    pool = engine.pool
    assert isinstance(pool, QueuePool)
    # One that a child's supervisor has just started (daemon/child.py) may not have come to its connection yet.
    wait_for(lambda: all(thread.name != "look" for thread in threading.enumerate()), "the end of every look")
    wait_for(lambda: pool.checkedout() == 0, "the last use of the database")
    engine.dispose()
