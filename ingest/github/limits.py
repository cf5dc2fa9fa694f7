"""When each token may ask again: GitHub's own figures, per token and resource, shared by all processes.

A window is the time between two resets of a limit. The requests that are left in it are spread over what is left of
it. One request of a token is on its way at a time, over all processes, as GitHub asks for; it is counted before it is
sent, so that none goes into a closed window, also when the process that was told of it is dead.
"""

import datetime as dt
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from ingest.github.clock import Clock
from ingest.github.pauses import MAX_PAUSE_S, MIN_PAUSE_S, server_time
from schema.crawl_limits import RESOURCES, LimitWindow, Windows

log = logging.getLogger(__name__)
ANONYMOUS = "anonymous"
Book = Callable[[Sequence[str]], AbstractContextManager[Windows]]
"""Opens the windows of some tokens for one process alone, and keeps what it changed of them."""

# Both of GitHub's times have a resolution of one second.
_MARGIN_S = 1.0
# A reset that lies further back is not one that has just passed while the answer travelled.
_STALE_S = 5.0
# While another process asks with the same token; its answer takes part of a second.
_TURN_POLL_S = 0.2
_MAX_BACK_OFF_S = 3600.0


class Limits:
    """The windows of all tokens, by their ids. A change that the database did not take is made with the next one."""

    def __init__(self, token_ids: Sequence[str], book: Book, clock: Clock, *, timeout_s: float) -> None:
        """Keep the windows in `book`; an answer that is not there after `timeout_s` seconds does not come."""
        self.token_ids = list(token_ids)
        self._all_ids, self._book, self._clock = list(token_ids), book, clock
        # The answer that nobody saw, for its process is dead, may have asked for a pause.
        self._turn_s = max(MIN_PAUSE_S, timeout_s + _MARGIN_S)
        self._turn: dt.datetime | None = None
        self._known: Windows = {}
        self._changes: list[Callable[[Windows], None]] = []
        self._strikes = 0

    def take_turn(self, resource: str, preferred: Collection[str] = ()) -> tuple[str, float]:
        """Return the token that may ask first and has most left, and the seconds until it may; at 0 it is its turn.

        One of `preferred` (they know the page's ETag) goes before the others unless its window is closed.
        """
        now = self._clock.utc()
        with self._open() as windows:
            token_id = min(self.token_ids, key=lambda name: _load(windows[name, resource], name in preferred, now))
            window = windows[token_id, resource]
            wait_s = _left_s(now, *_closings(window, now), window.paced_until)
            asked_s = _left_s(now, window.asking_until)
            if wait_s or asked_s:
                return token_id, max(wait_s, min(asked_s, _TURN_POLL_S))
            window.asking_until = self._turn = now + dt.timedelta(seconds=self._turn_s)
            window.remaining = None if _knows_nothing(window, now) else max(0, (window.remaining or 0) - 1)
        return token_id, 0.0

    def end_turn(
        self, token_id: str, resource: str, headers: Mapping[str, str] | None = None, *, pause_s: float = 0.0
    ) -> None:
        """End a turn with the figures of its answer, if it had one, and close every window for `pause_s`, all at once.

        Every one: the tokens may belong to one user, and GitHub bans who goes on after such a refusal.
        """
        now, turn, figures = self._clock.utc(), self._turn, None
        if headers is not None:
            figures = _read_figures(headers, now)
            resource = _named_resource(headers, resource)

        def change(windows: Windows) -> None:
            for window in windows.values():
                # A turn that was not ended in time may be another process's by now.
                if window.asking_until == turn:
                    window.asking_until = None
                if pause_s:
                    until = now + dt.timedelta(seconds=pause_s)
                    window.closed_until = max(until, window.closed_until or until)
            if figures is not None:
                _take_figures(windows[token_id, resource], *figures, now)

        self._changes.append(change)
        with self._open():
            pass

    def next_pause_s(self) -> float:
        """Return how long to wait for a limit that names no time: a minute that doubles with each refusal in a row."""
        return min(_MAX_BACK_OFF_S, MIN_PAUSE_S * 2.0 ** max(0, self._strikes - 1))

    @property
    def strikes(self) -> int:
        """Return how often in a row a limit has refused us."""
        return self._strikes

    def strike(self) -> None:
        """Count a refusal."""
        self._strikes += 1

    def forgive(self) -> None:
        """Take an answer that was no refusal by a limit."""
        self._strikes = 0

    def drop(self, token_id: str) -> None:
        """Use a token no more."""
        self.token_ids.remove(token_id)

    def remaining(self, resource: str) -> int | None:
        """Return the requests left over all tokens, as far as they are known."""
        known = [self._known[name, resource].remaining for name in self.token_ids if (name, resource) in self._known]
        return sum(num for num in known if num is not None) if any(num is not None for num in known) else None

    @contextmanager
    def _open(self) -> Iterator[Windows]:
        """Open the windows, with what could not be saved before; what is told is never forgotten by who was told."""
        with self._book(self._all_ids) as windows:
            for change in self._changes:
                change(windows)
            yield windows
        self._known = windows
        self._changes.clear()


def _knows_nothing(window: LimitWindow, now: dt.datetime) -> bool:
    return window.remaining is None or window.resets_at is None or window.resets_at <= now


def _closings(window: LimitWindow, now: dt.datetime) -> list[dt.datetime | None]:
    is_used_up = not _knows_nothing(window, now) and not window.remaining
    return [window.closed_until, window.resets_at if is_used_up else None]


def _left_s(now: dt.datetime, *times: dt.datetime | None) -> float:
    return max([0.0, *((time - now).total_seconds() for time in times if time is not None)])


def _load(window: LimitWindow, is_preferred: bool, now: dt.datetime) -> tuple[float, bool, float, float]:
    """Return what the tokens are ordered by: the least is the one to ask with."""
    closed_s = _left_s(now, *_closings(window, now))
    wait_s = _left_s(now, window.paced_until, window.asking_until)
    remaining = float("inf") if _knows_nothing(window, now) else window.remaining or 0
    return closed_s, not is_preferred, max(closed_s, wait_s), -remaining


def _named_resource(headers: Mapping[str, str], asked: str) -> str:
    named = headers.get("x-ratelimit-resource", asked)
    return named if named in RESOURCES else asked


def _take_figures(window: LimitWindow, remaining: int, left_s: float, now: dt.datetime) -> None:
    window.remaining = remaining
    window.resets_at = now + dt.timedelta(seconds=left_s)
    window.paced_until = now + dt.timedelta(seconds=left_s / max(1, remaining))


def tells_reset(headers: Mapping[str, str]) -> bool:
    """Say whether an answer says how many requests are left in its window, and when that ends."""
    try:
        int(headers["x-ratelimit-remaining"])
        float(headers["x-ratelimit-reset"])
    except (KeyError, ValueError):
        return False
    return True


def _read_figures(headers: Mapping[str, str], utc: dt.datetime) -> tuple[int, float] | None:
    """Return the requests that an answer says are left, and the seconds until there are new ones; None if it does not.

    The reset is a time of the server's clock: so is the Date beside it, whatever ours says.
    """
    if not tells_reset(headers):
        return None
    remaining, reset = int(headers["x-ratelimit-remaining"]), float(headers["x-ratelimit-reset"])
    left_s = reset - server_time(headers, utc)
    if left_s != left_s or left_s > MAX_PAUSE_S:
        log.warning(
            "GitHub's window resets in %.0f s: a day is waited at most", left_s, extra={"event": "crawl_capped"}
        )
        left_s = MAX_PAUSE_S
    elif remaining <= 0 and left_s < -_STALE_S:
        left_s = MIN_PAUSE_S  # used up, and reset long ago: then nobody knows when
    return min(max(0, remaining), 1 << 31), max(0.0, left_s) + _MARGIN_S
