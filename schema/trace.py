"""The tick that works right now: its id goes into every row that it writes."""

import contextlib
import contextvars
from collections.abc import Iterator

_tick: contextvars.ContextVar[str | None] = contextvars.ContextVar("tick", default=None)


@contextlib.contextmanager
def in_tick(tick: str) -> Iterator[None]:
    """Name what is written inside, in this thread, after this tick."""
    token = _tick.set(tick)
    try:
        yield
    finally:
        _tick.reset(token)


def current_tick() -> str | None:
    """Return the id of the tick that works in this thread; None for what an operator does."""
    return _tick.get()
