"""What a crawl asks: the plan `complete` for everything of a language, the plan `terms` for each term, five pages deep.

A full pass asks for all; the passes between two full ones ask for what was pushed since the last began.
"""

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa

from ingest.config import IngestSettings
from ingest.github.terms import load_terms
from ingest.github.windows import Window, whole
from schema.crawl import NewWindow, Pass, open_pass, plan_windows

PLANS = ("complete", "terms")
_MAX_PAGES = {"complete": 10, "terms": 5}


@dataclass(frozen=True, slots=True)
class Plan:
    """Which questions a crawl begins with."""

    name: str
    languages: tuple[str, ...]

    @property
    def max_pages(self) -> int:
        """Return how many pages of a question are read."""
        return _MAX_PAGES[self.name]

    @property
    def splits(self) -> bool:
        """Say whether a question with more results than GitHub shows is split."""
        return self.name == "complete"

    def roots(self, language: str, settings: IngestSettings, since: dt.date | None = None) -> list[Window]:
        """Return the windows with which a pass over a language begins."""
        terms = [f'"{term.text}"' for term in load_terms()] if self.name == "terms" else [""]
        limits = {"min_stars": settings.min_stars, "min_forks": settings.min_forks}
        return [whole(language, **limits, term=term, since=since) for term in terms]


def open_passes(conn: sa.Connection, plan: Plan, settings: IngestSettings, now: dt.datetime) -> dict[str, Pass]:
    """Begin a pass over each language, or go on with the one that was broken off."""
    full_every = dt.timedelta(days=settings.full_crawl_days)
    opened = {}
    for language in plan.languages:
        root = plan.roots(language, settings)[0].query
        running = open_pass(conn, plan.name, language, root=root, now=now, full_every=full_every)
        since = None
        if running.since is not None:
            since = (running.since - dt.timedelta(days=settings.crawl_overlap_days)).date()
        # Other limits than last time are other questions, and the old ones are dropped.
        roots = [to_new(window, plan) for window in plan.roots(language, settings, since)]
        plan_windows(conn, plan.name, language, running.kind, roots, replace=running.kind == "full")
        opened[language] = running
    return opened


def to_new(window: Window, plan: Plan) -> NewWindow:
    """Return the window as the database keeps it."""
    return NewWindow(window.query, window.to_json(), plan.max_pages)
