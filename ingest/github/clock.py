"""Time as the crawler sees it, given from outside: a wait ends at once when it is time to stop."""

import datetime as dt
import threading
import time
from typing import Protocol


class Stopped(Exception):
    """The crawler was asked to stop: nothing is wrong."""


class Clock(Protocol):
    """What tells the time and waits."""

    def now(self) -> float:
        """Return seconds that only grow."""

    def utc(self) -> dt.datetime:
        """Return the date and time."""

    def wait(self, seconds: float) -> bool:
        """Wait; return True, early, when it is time to stop."""

    def is_stopped(self) -> bool:
        """Say whether it is time to stop."""


class RealClock:
    """The machine's clock, and an event that ends every wait; whoever sets the wall clock meanwhile changes nothing."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self.agree(dt.datetime.now(dt.UTC))

    def agree(self, utc: dt.datetime) -> None:
        """Go by another clock from now on: the one that all processes share."""
        self._utc, self._at = utc, time.monotonic()

    def now(self) -> float:
        """Return seconds that only grow."""
        return time.monotonic()

    def utc(self) -> dt.datetime:
        """Return the date and time."""
        return self._utc + dt.timedelta(seconds=time.monotonic() - self._at)

    def wait(self, seconds: float) -> bool:
        """Wait; return True, early, when it is time to stop."""
        return self._stop.wait(seconds)

    def is_stopped(self) -> bool:
        """Say whether it is time to stop."""
        return self._stop.is_set()
