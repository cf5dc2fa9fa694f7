"""Hours of the week as people write them: `mon-fri 22:00-06:00`, `sat-sun`, `08:00-18:00`. Pure."""

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_SYNTAX = re.compile(r"(?:([a-z]+)(?:-([a-z]+))?)?\s*(?:([\d:]+)-([\d:]+))?")
_TIME = re.compile(r"(\d\d):(\d\d)")


@dataclass(frozen=True, slots=True)
class Window:
    """Minutes `start` to `end` (excluded) of `days` (0 is Monday); an end before the start is the next day's."""

    days: frozenset[int]
    start: int
    end: int

    def contains(self, local: dt.datetime) -> bool:
        """Say whether a local time is inside. The clock on the wall counts, in the hour that is set back both times."""
        day, minute = local.weekday(), local.hour * 60 + local.minute
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        began_yesterday = (day - 1) % 7 in self.days and minute < self.end
        return began_yesterday or (day in self.days and minute >= self.start)


def parse_window(text: str) -> Window:
    """Return the window of a text. Raises ValueError that names the text and the fix."""
    found = _SYNTAX.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        raise ValueError(
            f"{text!r} is not a window: write days, hours or both, as in 'mon-fri 22:00-06:00' or 'sat-sun'"
        )
    first, last, start_text, end_text = found.groups()
    start, end = (0, _DAY_MINUTES) if start_text is None else (_minute(start_text, text), _minute(end_text, text))
    if start in (end, _DAY_MINUTES):
        raise ValueError(f"{text!r} is an empty window: let it end later than it begins; a whole day has no hours")
    return Window(_days(first, last, text), start, end)


def is_inside(windows: Iterable[str], local: dt.datetime) -> bool:
    """Say whether a local time is inside one of the windows."""
    return any(parse_window(text).contains(local) for text in windows)


def next_opening(windows: Iterable[str], local: dt.datetime) -> dt.datetime | None:
    """Return when the next of the windows begins after a local time; None without windows."""
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    starts = (
        (midnight + dt.timedelta(days=ahead)).replace(hour=window.start // 60, minute=window.start % 60)
        for window in map(parse_window, windows)
        for ahead in range(8)
        if (midnight.weekday() + ahead) % 7 in window.days
    )
    return min((start for start in starts if start > local), default=None)


def _days(first: str | None, last: str | None, text: str) -> frozenset[int]:
    if first is None:
        return frozenset(range(7))
    begin = _day(first, text)
    num_more = (_day(last or first, text) - begin) % 7
    return frozenset((begin + more) % 7 for more in range(num_more + 1))


def _day(word: str, text: str) -> int:
    if word not in _DAYS:
        raise ValueError(f"{word!r} in window {text!r} is no day: write one of {', '.join(_DAYS)}")
    return _DAYS.index(word)


def _minute(word: str, text: str) -> int:
    found = _TIME.fullmatch(word)
    minute = _DAY_MINUTES + 1 if found is None else int(found[1]) * 60 + int(found[2])
    if found is None or int(found[2]) > 59 or minute > _DAY_MINUTES:
        raise ValueError(f"{word!r} in window {text!r} is no time of day: write it from 00:00 to 24:00")
    return minute
