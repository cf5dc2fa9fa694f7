"""When the threshold will be reached, at the pace at which rows have come of late. Pure: the time comes in."""

from collections import deque
from dataclasses import dataclass, field

_WINDOW_S = 3600.0


@dataclass(slots=True)
class Expectation:
    """Counts of the backlog within the last hour, since it last fell: a run that claims begins anew."""

    _counts: deque[tuple[float, int]] = field(default_factory=deque)

    def expect(self, now_s: float, num_fresh: int, num_needed: int) -> float | None:
        """Take a count; return the seconds until `num_needed`, 0 once they are there, None while nothing comes."""
        if self._counts and num_fresh < self._counts[-1][1]:
            self._counts.clear()
        self._counts.append((now_s, num_fresh))
        while self._counts[0][0] < now_s - _WINDOW_S:
            self._counts.popleft()
        if num_fresh >= num_needed:
            return 0.0
        since_s, first = self._counts[0]
        if num_fresh == first:
            return None
        return (num_needed - num_fresh) * (now_s - since_s) / (num_fresh - first)
