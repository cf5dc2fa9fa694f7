"""What becomes of a repository that was found: queued with a priority, or refused with a reason. Pure."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from ingest.config import IngestSettings
from ingest.github.kinds import KIND_NAMES
from ingest.github.replies import Found
from ingest.github.score import Score, score_repository
from ingest.github.terms import match_terms
from schema.found import FoundRow

# Below the sources that the operator names, which have priority 0 or more; the best ones first.
_PRIORITY_OF_ZERO = -100
# What time alone mends.
AGEING = ("young", "young_owner")
REASONS = frozenset(
    {
        *AGEING,
        *KIND_NAMES,
        "archived",
        "contradictory",
        "disabled",
        "force_exclude",
        "foreign_clone_url",
        "fork",
        "not_public",
        "opted_out",
        "score",
        "too_big",
        "unknown_owner",
        "unpopular",
    }
)
"""Everything that may stand against a repository that was found."""
_API_HOST, _HOST = "api.github.com", "github.com"


def clone_host(api_url: str) -> str:
    """Return the host from which the API's repositories are cloned."""
    host = urlsplit(api_url).netloc.lower()
    return _HOST if host == _API_HOST else host


def accept(found: Found, language: str, settings: IngestSettings, *, now: dt.datetime) -> FoundRow:
    """Judge one repository of `language`, and return its row."""
    terms = match_terms(found.name, found.description or "", found.topics, language)
    score = score_repository(found, terms, now)
    reason = _refuse(found, score, settings, now)
    host = clone_host(settings.github_api_url)
    return FoundRow(
        node_id=found.node_id,
        source=f"https://{host}/{found.full_name.lower()}",
        host=host,
        owner=found.owner.lower(),
        name=found.name.lower(),
        stars=found.stargazers_count,
        forks=found.forks_count,
        language=language,
        topics=found.topics,
        api_licence=found.spdx,
        size_kb=found.size,
        pushed_at=found.pushed_at,
        repository_score=score.value,
        score_detail=score.to_json(),
        priority=round(score.value) + _PRIORITY_OF_ZERO,
        state="refused" if reason else "queued",
        reason=reason,
        description=found.description,
    )


def withdraw(rows: Sequence[FoundRow], opted_out: Sequence[str]) -> list[FoundRow]:
    """Return the rows, with those refused, whatever was found, that globs over owner/name opt out."""
    return [
        replace(row, state="refused", reason="opted_out") if matches(f"{row.owner}/{row.name}", opted_out) else row
        for row in rows
    ]


def _refuse(found: Found, score: Score, settings: IngestSettings, now: dt.datetime) -> str | None:
    """Return the reason against a repository, None if it is accepted."""
    address = f"https://{clone_host(settings.github_api_url)}/{found.full_name}".lower()
    if found.clone_url.lower() != f"{address}.git":
        return "foreign_clone_url"
    if found.html_url.lower() != address or found.account.login.lower() != found.owner.lower():
        return "contradictory"  # it says two names of itself
    if found.private or found.disabled:
        return "not_public" if found.private else "disabled"
    if found.size > settings.max_repository_kb:
        return "too_big"
    if matches(found.full_name, settings.force_exclude):
        return "force_exclude"
    if matches(found.full_name, settings.force_include):
        return None
    for reason in ("archived", "fork"):
        if getattr(found, reason):
            return reason
    if found.mirror_url:
        return "mirror"
    if found.stargazers_count < settings.min_stars or found.forks_count < settings.min_forks:
        return "unpopular"
    if now - found.created_at < dt.timedelta(days=settings.min_repository_age_days):
        return "young"  # until it is found again
    if score.value < settings.min_repository_score:
        return next(iter(score.kinds), "score")
    return None


def matches(full_name: str, patterns: Sequence[str]) -> bool:
    """Say whether owner/name fits one of the globs; letter case does not count."""
    name = full_name.lower()
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns)
