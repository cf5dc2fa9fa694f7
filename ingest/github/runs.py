"""One run of the crawler as the command makes it: its parts wired, its progress shown, its figures at the end."""

import datetime as dt
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from ingest.alive import Alive, say_nothing
from ingest.config import IngestSettings
from ingest.github.client import Client
from ingest.github.clock import Clock
from ingest.github.context import Crawler
from ingest.github.crawler import crawl
from ingest.github.plans import Plan, open_passes
from monitoring.progress import Progress, Task
from schema.crawl import count_windows, fetch_reasons
from schema.crawl_limits import open_limits
from schema.crawl_pages import forget_pages

log = logging.getLogger(__name__)
SEARCHES_PER_MIN, ANONYMOUS_SEARCHES_PER_MIN = 30, 10


@dataclass(slots=True)
class _Display:
    """What the bar shows between two windows and during a wait."""

    task: Task | None
    client: Client
    crawler: Crawler | None = None
    waiting: str = "-"
    num_done: int = 0
    num_known: int = 0

    def show(self, counts: dict[str, int]) -> None:
        """Take the windows by state."""
        self.num_done = counts["done"] + counts["split"] + counts["kept"]
        self.num_known = sum(counts.values())
        self.waiting = "-"
        self.update()

    def update(self) -> None:
        """Show the figures as they are."""
        if self.task is None or self.crawler is None:
            return
        found = self.crawler.tally.repositories
        self.task.update(
            self.num_done,
            self.num_known,
            found=sum(found.values()),
            queued=found["queued"],
            requests=self.client.num_requests,
            remaining="?" if self.client.remaining("search") is None else self.client.remaining("search"),
            waiting=self.waiting,
        )


def run_crawl(
    engine: sa.Engine,
    settings: IngestSettings,
    plan: Plan,
    clock: Clock,
    *,
    progress: Progress | None = None,
    alive: Alive = say_nothing,
) -> dict[str, Any]:
    """Crawl until every window of the pass was read, or it is time to stop; return the figures.

    Raises:
        BadTokens: GitHub accepts none of the tokens.
    """
    started = clock.now()
    with engine.begin() as conn:
        passes = open_passes(conn, plan, settings, clock.utc())
        forget_pages(conn, unseen_for=dt.timedelta(days=2 * settings.full_crawl_days))
    client = open_client(engine, settings, clock)
    display = _Display(progress.task(f"crawl {plan.name}") if progress else None, client)
    crawler = Crawler(engine, client, plan, settings, clock, display.show, alive)
    display.crawler = crawler

    def on_wait(left_s: float, reason: str) -> None:
        crawler.keep_claim()
        until = clock.utc() + dt.timedelta(seconds=left_s)
        display.waiting = f"{reason} until {until.astimezone():%H:%M:%S}" if left_s >= 1 else "-"
        display.update()

    client.on_wait = on_wait
    try:
        crawl(crawler)
    finally:
        client.close()
        if display.task is not None:
            display.task.done()
    with engine.begin() as conn:
        windows = count_windows(conn, plan.name, plan.languages)
        hidden = fetch_reasons(conn, plan.name, plan.languages)
    return {
        "plan": plan.name,
        "passes": {language: running.kind for language, running in passes.items()},
        "finished": not windows["pending"] and not windows["working"],
        "windows": windows,
        "incomplete": hidden,
        "repositories": dict(crawler.tally.repositories),
        "refused": dict(crawler.tally.reasons.most_common()),
        "pages": crawler.tally.num_pages,
        "pages_unchanged": crawler.tally.num_unchanged,
        "requests": client.num_requests,
        "waited": {reason: round(seconds, 1) for reason, seconds in client.waited_s.items()},
        "seconds": round(clock.now() - started, 1),
    }


def open_client(engine: sa.Engine, settings: IngestSettings, clock: Clock) -> Client:
    """Return a client for the configured API and tokens; without a token say how slow it will be.

    What is known of the limits lies in the database: another process with these tokens, or the next one, obeys it too.
    """
    if not settings.github_tokens:
        log.warning(
            "no CODELUPE_GITHUB_TOKENS: the crawler asks %d times a minute, a third of what a token may",
            ANONYMOUS_SEARCHES_PER_MIN,
            extra={"event": "crawl_without_token"},
        )
    book, timeout_s = partial(open_limits, engine), settings.github_timeout_s
    return Client(settings.github_api_url, settings.github_tokens, clock, book, timeout_s=timeout_s)
