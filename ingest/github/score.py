"""How much a repository promises before anyone has cloned it: 0 to 100, from six components. Pure.

The weights say what predicts code worth learning from, as far as a search result shows it. That it is maintained, and
by people who write down what it is, weighs as much as that others like it: stars alone would take the famous lists.
"""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.github.kinds import find_kinds
from ingest.github.replies import Found

# Another number reads again what was judged by an earlier one; so does another list of terms.
SCORE_VERSION = 1
WEIGHTS: Mapping[str, float] = {
    "popularity": 0.25,  # what others have found worth a star, and worth a change of their own
    "activity": 0.20,  # code of today's interfaces, and more than a weekend's
    "documentation": 0.15,  # who describes it to others tends to write it for others
    "licence": 0.15,  # without one nothing of it may be kept
    "size": 0.10,  # neither a snippet nor a heap of data
    "terms": 0.15,  # it is about something of the list of terms
}
# More than half of the scale: what is no software does not pass at the default, however famous it is.
KIND_PENALTY = 60.0
_FULL_STARS, _FULL_FORKS = 10_000, 2_000
_FRESH_DAYS, _STALE_DAYS = 365, 5 * 365
_GROWN_DAYS = 180
_GOOD_KB = (50, 100_000)
_LIMIT_KB = (5, 1_000_000)
_POINTS_PER_TERM = 50.0
_MIN_DESCRIPTION_CHARS = 15
_FULL_TOPICS = 4


@dataclass(frozen=True, slots=True)
class Score:
    """A score with what it was made of."""

    value: float
    components: dict[str, float]
    kinds: dict[str, str]
    terms: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return what is stored beside the score."""
        penalties = {kind: {"points": KIND_PENALTY, "said_by": where} for kind, where in self.kinds.items()}
        return {"components": self.components, "penalties": penalties, "terms": self.terms}


def score_repository(found: Found, terms: Sequence[str], now: dt.datetime) -> Score:
    """Score what a search result says; `terms` are those of the list that it matches."""
    components = {
        "popularity": 70 * _log_share(found.stargazers_count, _FULL_STARS)
        + 30 * _log_share(found.forks_count, _FULL_FORKS),
        "activity": _score_activity(found, now),
        "documentation": _score_documentation(found),
        "licence": 100.0 if found.spdx else 30.0 if found.license else 0.0,
        "size": _score_size(found.size),
        "terms": min(100.0, _POINTS_PER_TERM * len(terms)),
    }
    components = {name: round(value, 1) for name, value in components.items()}
    kinds = find_kinds(found.name, found.description or "", found.topics)
    value = sum(WEIGHTS[name] * points for name, points in components.items()) - KIND_PENALTY * bool(kinds)
    return Score(round(min(100.0, max(0.0, value)), 1), components, kinds, list(terms))


def _log_share(number: int, full: int) -> float:
    """Return 0 to 1: ten times as much is always the same step."""
    return min(1.0, math.log10(1 + number) / math.log10(1 + full))


def _score_activity(found: Found, now: dt.datetime) -> float:
    """Full for a push within a year, none after five; half of it for what is younger than half a year at its push."""
    idle_days = (now - found.pushed_at).days
    fresh = 1 - min(1.0, max(0.0, (idle_days - _FRESH_DAYS) / (_STALE_DAYS - _FRESH_DAYS)))
    grown = min(1.0, max(0.0, (found.pushed_at - found.created_at).days / _GROWN_DAYS))
    return 100 * fresh * (0.5 + 0.5 * grown)


def _score_documentation(found: Found) -> float:
    description = found.description or ""
    points = 50.0 if len(description) >= _MIN_DESCRIPTION_CHARS else 0.0
    points += 40.0 * min(1.0, len(found.topics) / _FULL_TOPICS)
    return points + (10.0 if found.homepage else 0.0)


def _score_size(size_kb: int) -> float:
    """Full between 50 KB and 100 MB, falling to none at 5 KB and at 1 GB."""
    if size_kb < _GOOD_KB[0]:
        return 100 * max(0.0, (size_kb - _LIMIT_KB[0]) / (_GOOD_KB[0] - _LIMIT_KB[0]))
    over = math.log10(max(1.0, size_kb / _GOOD_KB[1])) / math.log10(_LIMIT_KB[1] / _GOOD_KB[1])
    return 100 * (1 - min(1.0, over))
