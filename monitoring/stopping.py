"""How a process is asked to stop: SIGTERM and Ctrl-C set an event, and break off what cannot look at it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
_Handler = Callable[[int, FrameType | None], None]


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at SIGTERM and Ctrl-C, and do nothing else; the handlers before come back afterwards."""
    with _handling(lambda _number, _frame: stop.set()):
        yield


def until_stopped(stop: threading.Event, step: Callable[[], T]) -> T | None:
    """Do a step of the start, which waits for others; a signal sets `stop`, breaks the step off, and None comes back.

    Only for what may end anywhere: the loops that follow look at `stop` themselves.
    """

    def break_off(_number: int, _frame: FrameType | None) -> None:
        if not stop.is_set():  # a second signal must not break off the clearing up after the first
            stop.set()
            raise KeyboardInterrupt

    try:
        with _handling(break_off):
            return None if stop.is_set() else step()
    except KeyboardInterrupt:
        return None


@contextmanager
def _handling(handler: _Handler) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
