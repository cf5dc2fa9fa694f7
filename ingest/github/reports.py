"""What a crawl would take and what one did, as people read it."""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ingest.config import IngestSettings
from ingest.github.accept import accept, withdraw
from ingest.github.answers import Unreachable
from ingest.github.client import Client
from ingest.github.clock import Clock
from ingest.github.plans import Plan
from ingest.github.replies import PER_PAGE, PageBroken, read_page
from ingest.github.runs import ANONYMOUS_SEARCHES_PER_MIN, SEARCHES_PER_MIN, open_client
from schema.opt_outs import fetch_opt_outs

log = logging.getLogger(__name__)
# Beside the pages themselves: the first pages of windows that had to be split, and last pages that were not full.
_OVERHEAD = 1.2
_LONG_WAIT_S = 5.0
_MAX_LINES = 20


def forecast_crawl(engine: sa.Engine, settings: IngestSettings, plan: Plan, clock: Clock) -> dict[str, Any]:
    """Ask one question per language (of `terms` the first), and say what a full pass would take; nothing is queued.

    Raises:
        ApiError: GitHub does not answer.
    """
    client = open_client(engine, settings, clock)
    client.on_wait = _Announcer()
    with engine.begin() as conn:
        opted_out = fetch_opt_outs(conn)
    try:
        languages = {name: _forecast(client, settings, plan, name, clock, opted_out) for name in plan.languages}
    finally:
        client.close()
    per_minute = SEARCHES_PER_MIN * len(settings.github_tokens) or ANONYMOUS_SEARCHES_PER_MIN
    requests = sum(figures["requests"] for figures in languages.values())
    return {"plan": plan.name, "languages": languages, "requests": requests, "minutes": round(requests / per_minute)}


class _Announcer:
    """Says once of each long wait how long it is."""

    def __init__(self) -> None:
        self._last_s = 0.0

    def __call__(self, left_s: float, reason: str) -> None:
        """Hear of one slice of a wait."""
        if left_s > max(_LONG_WAIT_S, self._last_s):
            log.info("waiting for %.0f s (%s)", left_s, reason, extra={"event": "crawl_waits"})
        self._last_s = left_s


def _forecast(
    client: Client, settings: IngestSettings, plan: Plan, language: str, clock: Clock, opted_out: Sequence[str]
) -> dict[str, Any]:
    roots = plan.roots(language, settings)
    try:
        page = read_page(client.fetch(client.search_url(roots[0].query)).body)
    except PageBroken as error:
        raise Unreachable("broken_body", f"{roots[0].query}: {error}") from None
    judged = withdraw([accept(found, language, settings, now=clock.utc()) for found in page.found], opted_out)
    pages = math.ceil(page.total / PER_PAGE * _OVERHEAD) if plan.splits else plan.max_pages * len(roots)
    return {
        "query": roots[0].query,
        "repositories": page.total,
        "requests": max(1, pages),
        "accepted_of_first_page": sum(row.reason is None for row in judged),
        "first_page": len(judged),
        "refused_of_first_page": dict(Counter(row.reason for row in judged if row.reason).most_common()),
    }


def describe_report(report: dict[str, Any]) -> Sequence[str]:
    """Return a run's figures as people read them."""
    found, windows = report["repositories"], report["windows"]
    left = windows["pending"] + windows["working"]
    outcomes = ", ".join(f"{num} {word}" for word, num in found.items()) or "none"
    pages = f"{report['pages_unchanged']} of {report['pages']} pages unchanged"
    waited = ", ".join(f"{seconds:.0f} s for {reason}" for reason, seconds in report["waited"].items()) or "none"
    lines = [
        f"{sum(found.values())} repositories seen: {outcomes}",
        f"windows: {windows['done']} read, {windows['split']} split, {left} left, {windows['kept']} kept for later",
        f"{report['requests']} requests, {pages}, {report['seconds']:.0f} s; waited: {waited}",
    ]
    if report["refused"]:
        lines.append("refused: " + _list(report["refused"]))
    hidden = report["incomplete"]
    lines += [f"  {row['state']}: {row['query']}: {row['reason']}" for row in hidden[:_MAX_LINES]]
    if len(hidden) > _MAX_LINES:
        lines.append(f"  … and {len(hidden) - _MAX_LINES} more windows that hide something; --json names all")
    if not report["finished"]:
        lines.append("broken off: the next `codelupe ingest crawl` goes on with the windows that are left")
    elif found.get("queued"):
        lines.append("`codelupe ingest work` or `codelupe up` reads what is queued")
    return lines


def describe_forecast(report: dict[str, Any]) -> Sequence[str]:
    """Return a forecast as people read it."""
    lines = []
    for language, figures in report["languages"].items():
        lines.append(
            f"{language}: {figures['repositories']} repositories, about {figures['requests']} requests; "
            f"{figures['accepted_of_first_page']} of the first {figures['first_page']} would be queued"
        )
        if figures["refused_of_first_page"]:
            lines.append(f"  refused: {_list(figures['refused_of_first_page'])}")
    return [*lines, f"together about {report['requests']} requests, {report['minutes']} minutes; nothing was queued"]


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{num} {reason}" for reason, num in counts.items())
