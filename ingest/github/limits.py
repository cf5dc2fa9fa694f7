"""When each token may ask again: GitHub's own figures, per token and resource, kept without a request.

A window is the time between two resets of a limit. The requests that are left in it are spread over what is left of
it, so that another process with the same token finds some too, and none is ever sent into a closed one.
"""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

# Both of GitHub's times have a resolution of one second.
_MARGIN_S = 1.0
# No window of GitHub is longer than an hour.
_MAX_WINDOW_S = 86_400.0
ANONYMOUS = "anonymous"


@dataclass(slots=True)
class _Window:
    """What is known of one token's limit on one resource, in seconds of the clock."""

    remaining: int | None = None  # as the last answer said
    opens_at: float = 0.0
    paced_at: float = 0.0


class Limits:
    """The windows of all tokens, by their ids."""

    def __init__(self, token_ids: Sequence[str]) -> None:
        self.token_ids = list(token_ids)
        self._windows: dict[tuple[str, str], _Window] = {}
        self._closed_until = 0.0
        self._strikes = 0

    def choose(self, resource: str, now: float, preferred: Collection[str] = ()) -> tuple[str, float]:
        """Return the token that may ask first and has most left, and the seconds until it may.

        One of `preferred` (they know the page's ETag) goes before the others unless its window is closed.
        """

        def load(token_id: str) -> tuple[float, bool, float, float]:
            window = self._window(token_id, resource)
            remaining = float("inf") if window.remaining is None else window.remaining
            closed_s = max(0.0, max(window.opens_at, self._closed_until) - now)
            return closed_s, token_id not in preferred, self._wait_s(window, now), -remaining

        token_id = min(self.token_ids, key=load)
        return token_id, self._wait_s(self._window(token_id, resource), now)

    def note(self, token_id: str, resource: str, headers: Mapping[str, str], now: float, utc: dt.datetime) -> None:
        """Take the figures of an answer; one without any changes nothing."""
        try:
            remaining, reset = int(headers["x-ratelimit-remaining"]), float(headers["x-ratelimit-reset"])
        except (KeyError, ValueError):
            return
        window = self._window(token_id, headers.get("x-ratelimit-resource", resource))
        # The reset is a time of the server's clock: so is the Date beside it, whatever ours says.
        left_s = min(_MAX_WINDOW_S, max(0.0, reset - _server_time(headers, utc))) + _MARGIN_S
        window.remaining = remaining
        if remaining <= 0:
            window.opens_at = now + left_s
        window.paced_at = now + left_s / max(1, remaining)

    def is_closed(self, token_id: str, resource: str, now: float) -> bool:
        """Say whether a token's window is used up."""
        return self._window(token_id, resource).opens_at > now

    def close_all(self, seconds: float | None, now: float) -> float:
        """Close every window for `seconds`, or for a minute that doubles with each time in a row; return how long.

        All of them: the tokens may belong to one user, and GitHub bans who goes on after such a refusal.
        """
        self.strike()
        wait_s = seconds if seconds is not None else min(3600.0, 60.0 * 2 ** (self._strikes - 1))
        self._closed_until = max(self._closed_until, now + wait_s)
        return wait_s

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
        known = [self._window(token_id, resource).remaining for token_id in self.token_ids]
        return sum(num for num in known if num is not None) if any(num is not None for num in known) else None

    def _window(self, token_id: str, resource: str) -> _Window:
        return self._windows.setdefault((token_id, resource), _Window())

    def _wait_s(self, window: _Window, now: float) -> float:
        return max(0.0, max(window.opens_at, window.paced_at, self._closed_until) - now)


def _server_time(headers: Mapping[str, str], utc: dt.datetime) -> float:
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return utc.timestamp()
