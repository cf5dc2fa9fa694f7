"""Generated repositories: star counts by a power law, creation growing over the years, and days on which all did it."""

import datetime as dt
import itertools
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

TODAY = dt.date(2026, 11, 1)
# language: share, first day
LANGUAGES = {
    "Python": (0.30, dt.date(2008, 3, 1)),
    "JavaScript": (0.27, dt.date(2008, 4, 1)),
    "TypeScript": (0.17, dt.date(2012, 10, 1)),
    "Go": (0.13, dt.date(2009, 11, 10)),
    "Rust": (0.08, dt.date(2011, 6, 1)),
    "Dart": (0.05, dt.date(2013, 11, 1)),
}
# language, day, repositories of that day, their stars (None: more than elsewhere)
CROWDED_DAYS = (
    ("Python", dt.date(2016, 5, 4), 2900, None),
    ("JavaScript", dt.date(2019, 10, 1), 2500, None),
    ("TypeScript", dt.date(2021, 3, 3), 1300, 12),
)
WORDS = (
    "fast",
    "small",
    "simple",
    "library",
    "server",
    "client",
    "tool",
    "engine",
    "for",
    "of",
    "with",
    "the",
    "async",
)
TOPICS = ("cli", "parser", "compiler", "database", "django", "react", "tokio", "kubernetes", "flutter", "awesome")
LICENCES = ("MIT", "Apache-2.0", "BSD-3-Clause", "GPL-3.0", "NOASSERTION", None)


@dataclass(frozen=True, slots=True)
class Repo:
    """One repository as the fake knows it."""

    number: int
    full_name: str
    language: str
    stars: int
    forks: int
    created: dt.date
    pushed: dt.date
    description: str | None = "A library"
    topics: tuple[str, ...] = ()
    licence: str | None = "MIT"
    size: int = 500
    archived: bool = False
    fork: bool = False
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def node_id(self) -> str:
        return f"R_{self.number}"

    def to_json(self, host: str) -> dict[str, Any]:
        owner, _, name = self.full_name.partition("/")
        return {
            "id": self.number,
            "node_id": self.node_id,
            "name": name,
            "full_name": self.full_name,
            "private": False,
            "owner": {"login": owner, "type": "User", "id": number_owner(owner)},
            "html_url": f"https://{host}/{self.full_name}",
            "clone_url": f"https://{host}/{self.full_name}.git",
            "description": self.description,
            "fork": self.fork,
            "created_at": f"{self.created}T10:00:00Z",
            "pushed_at": f"{self.pushed}T11:00:00Z",
            "homepage": None,
            "size": self.size,
            "stargazers_count": self.stars,
            "forks_count": self.forks,
            "language": self.language,
            "archived": self.archived,
            "disabled": False,
            "mirror_url": None,
            "license": None if self.licence is None else {"spdx_id": self.licence, "key": "x"},
            "topics": list(self.topics),
            "visibility": "public",
            "score": 1.0,
        } | self.values


def number_owner(login: str) -> int:
    """Return the number of an account: the later it was made, the higher; that of `newcomer-N` is N days ago."""
    _, is_new, days = login.rpartition("newcomer-")
    return 10_000_000 - int(days) if is_new else 1000 + zlib.crc32(login.lower().encode()) % 9_000_000


def date_owner(login: str) -> dt.date:
    """Return the day on which an account was made."""
    number = number_owner(login)
    return TODAY - dt.timedelta(days=min(6000, 10_000_000 - number))


def make_repo(full_name: str, number: int = 1, **values: Any) -> Repo:
    """Make a repository that is accepted, unless `values` say otherwise."""
    defaults = {
        "language": "Python",
        "stars": 500,
        "forks": 50,
        "created": dt.date(2020, 1, 1),
        "pushed": TODAY - dt.timedelta(days=9),
        "description": "A fast parser of configuration files",
        "topics": ("parser", "cli"),
    }
    return Repo(number, full_name, **(defaults | values))


def generate(num: int, seed: int = 7) -> list[Repo]:
    """Generate `num` repositories over all languages, those of the crowded days among them."""
    rng = random.Random(seed)
    numbers = itertools.count(1)
    repos = [
        _one(rng, next(numbers), language, day=day, stars=stars)
        for language, day, size, stars in CROWDED_DAYS
        for _ in range(size)
    ]
    languages = rng.choices(list(LANGUAGES), [share for share, _ in LANGUAGES.values()], k=num - len(repos))
    return repos + [_one(rng, next(numbers), language) for language in languages]


def push(repos: list[Repo], share: float, seed: int = 8) -> tuple[list[Repo], set[str]]:
    """Push to a share of the repositories today; return all, and the node ids of those."""
    rng = random.Random(seed)
    chosen = {repo.number for repo in repos if rng.random() < share}
    return [replace(repo, pushed=TODAY) if repo.number in chosen else repo for repo in repos], {
        repo.node_id for repo in repos if repo.number in chosen
    }


def _one(
    rng: random.Random, number: int, language: str, *, day: dt.date | None = None, stars: int | None = None
) -> Repo:
    created = day or _birth(rng, LANGUAGES[language][1])
    stars = stars or int((5 if day else 3) * rng.paretovariate(0.9))
    return Repo(
        number=number,
        full_name=f"Owner-{int(rng.paretovariate(0.4)) % 9000}/repo-{number}",
        language=language,
        stars=min(stars, 400_000),
        forks=int(stars * rng.uniform(0.02, 0.6)) + rng.randrange(4),
        created=created,
        pushed=created + (TODAY - created) * (1 - rng.random() ** 1.5),
        description=" ".join(rng.choices(WORDS, k=rng.randrange(3, 12))) if rng.random() < 0.9 else None,
        topics=tuple(rng.sample(TOPICS, rng.randrange(4))),
        licence=rng.choice(LICENCES),
        size=int(20 * rng.paretovariate(0.5)) % 3_000_000,
        archived=rng.random() < 0.05,
        fork=rng.random() < 0.02,
    )


def _birth(rng: random.Random, first: dt.date) -> dt.date:
    """Return a day: more of them each year until 2019, fewer with stars after 2023, weekdays more than weekends."""
    while True:
        day = first + (TODAY - first) * rng.random()
        years = (day - dt.date(2008, 1, 1)).days / 365.25
        weight = min(1.0, 0.05 + (years / 11) ** 1.5) * (1.0 if day.year < 2024 else 0.6)
        if rng.random() < weight * (1.0 if day.weekday() < 5 else 0.6):
            return day


def matching(repos: list[Repo]) -> Iterator[Repo]:
    """Yield what the plan `complete` is to find."""
    return (repo for repo in repos if repo.stars >= 10 and repo.forks >= 3 and not repo.archived and not repo.fork)
