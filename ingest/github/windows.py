"""Windows: parts of the space of repositories, small enough that GitHub shows all of each. Pure.

A search shows 1,000 repositories at most. A window is a box (created, stars, pushed) of one language; splitting it
gives boxes that tile it, without gap and without overlap, about equally full.
"""

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_RESULTS = 1000
# What a part of a split should hold: little enough that most of a rough guess still fits, and not much less,
# since every part ends with a page that is not full.
_TARGET_RESULTS = 800
_MAX_PARTS = 64
# Ten times as many as all public repositories with ten stars need: beyond, the counts are no counts.
MAX_WINDOWS = 20_000
# The first repository of GitHub is of October 2007; the density of those with stars rises from there.
_FIRST_DAY = dt.date(2007, 10, 1).toordinal()
GITHUB_LANGUAGES = {
    "python": "Python",
    "go": "Go",
    "rust": "Rust",
    "typescript": "TypeScript",
    "javascript": "JavaScript",
    "dart": "Dart",
}
AXES = ("created", "stars", "pushed")


@dataclass(frozen=True, slots=True)
class Range:
    """The integers from `low` to `high`, both included; None is no bound. Days are counted as date.toordinal does."""

    low: int | None = None
    high: int | None = None

    def cut(self, points: list[int]) -> list["Range"]:
        """Return the parts that begin at `points`, which rise and lie above `low` and not above `high`."""
        lows = [self.low, *points]
        highs = [*(point - 1 for point in points), self.high]
        return [Range(low, high) for low, high in zip(lows, highs, strict=True)]


@dataclass(frozen=True, slots=True)
class Window:
    """A question to GitHub's search: the repositories of one language in a box, and with `term` those that match it."""

    language: str
    min_forks: int
    created: Range
    stars: Range
    pushed: Range
    term: str = ""

    @property
    def query(self) -> str:
        """Return the search query; windows are the same if their queries are."""
        words = [self.term] if self.term else []
        words += [f"language:{GITHUB_LANGUAGES[self.language]}", "is:public", "archived:false"]
        words += [f"forks:>={self.min_forks}"] if self.min_forks else []
        words += (
            _say("stars", self.stars, str) + _say("created", self.created, _date) + _say("pushed", self.pushed, _date)
        )
        return " ".join(words)

    def to_json(self) -> dict[str, Any]:
        """Return what from_json reads."""
        box = {axis: [getattr(self, axis).low, getattr(self, axis).high] for axis in AXES}
        return {"language": self.language, "min_forks": self.min_forks, "term": self.term, **box}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "Window":
        """Return the window that to_json wrote."""
        return cls(**{**saved, **{axis: Range(*saved[axis]) for axis in AXES}})


def whole(language: str, *, min_stars: int, min_forks: int, term: str = "", since: dt.date | None = None) -> Window:
    """Return the window of everything of a language, with `since` of what was pushed from that day on."""
    pushed = Range(since.toordinal() if since else None)
    return Window(language, min_forks, Range(), Range(min_stars), pushed, term)


def split(window: Window, total: int, today: dt.date) -> list[Window]:
    """Return the parts of a window of `total` results: by creation, on a single day by stars, then by push.

    Empty where nothing is left to split.
    """
    num_parts = max(2, min(_MAX_PARTS, math.ceil(total / _TARGET_RESULTS)))
    for axis, cut_points in (("created", _cut_days), ("stars", _cut_stars), ("pushed", _cut_pushes)):
        span: Range = getattr(window, axis)
        points = [point for point in cut_points(window, num_parts, today.toordinal()) if _is_inside(point, span)]
        if points:
            return [_replace(window, axis, part) for part in span.cut(sorted(set(points)))]
    return []


def _replace(window: Window, axis: str, part: Range) -> Window:
    return Window.from_json({**window.to_json(), axis: [part.low, part.high]})


def _is_inside(point: int, span: Range) -> bool:
    return (span.low is None or point > span.low) and (span.high is None or point <= span.high)


def _cut_days(window: Window, num_parts: int, today: int) -> list[int]:
    """Cut creation so that the parts are equal if the number of new repositories grows steadily."""
    low = _FIRST_DAY if window.created.low is None else window.created.low
    end = (today if window.created.high is None else window.created.high) + 1
    if end - low < 2:
        return []
    first, last = (max(0, low - _FIRST_DAY)) ** 2, (max(1, end - _FIRST_DAY)) ** 2
    shares = [first + (last - first) * part / num_parts for part in range(1, num_parts)]
    return _spread([_FIRST_DAY + round(math.sqrt(share)) for share in shares], low, end)


def _cut_stars(window: Window, num_parts: int, _: int) -> list[int]:
    """Cut stars so that the parts are equal if half as many repositories have twice the stars."""
    low = window.stars.low or 0
    end = math.inf if window.stars.high is None else window.stars.high + 1
    if end - low < 2:
        return []
    first, last = 1 / (low + 1), 1 / (end + 1)
    shares = [first + (last - first) * part / num_parts for part in range(1, num_parts)]
    return _spread([round(1 / share) - 1 for share in shares], low, end)


def _cut_pushes(window: Window, num_parts: int, today: int) -> list[int]:
    """Cut the last push evenly between creation and today; who was imported may have been pushed before."""
    low = window.pushed.low
    if low is None:
        low = (window.created.low or _FIRST_DAY) - 1
    end = (today if window.pushed.high is None else window.pushed.high) + 1
    if end - low < 2:
        return []
    return _spread([low + round((end - low) * part / num_parts) for part in range(1, num_parts)], low, end)


def _spread(points: list[int], low: int, end: float) -> list[int]:
    """Keep the points at which a part may begin, and one at least."""
    return [point for point in points if low < point < end] or [low + 1]


def _say(name: str, span: Range, show: Callable[[Any], str]) -> list[str]:
    if span.low is None and span.high is None:
        return []
    if span.high is None:
        return [f"{name}:>={show(span.low)}"]
    if span.low is None:
        return [f"{name}:<={show(span.high)}"]
    return [f"{name}:{show(span.low)}..{show(span.high)}"]


def _date(day: int) -> str:
    return dt.date.fromordinal(day).isoformat()
