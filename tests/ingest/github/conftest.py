"""A clock that a test moves, a fake GitHub on it, and crawls against the two."""

import datetime as dt
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from ingest.config import IngestSettings
from ingest.github.plans import Plan
from ingest.github.runs import run_crawl
from schema.crawl_limits import RESOURCES, LimitWindow, Windows
from tests.ingest.github.fake import FakeGithub
from tests.ingest.github.universe import TODAY, Repo

TOKEN = "ghx-secret-of-alice-0123456789"
# Longer than any client here waits by the test's clock; by the machine's it may take its time with every answer.
HANG_S = 100.0


class FakeClock:
    """Time that passes only in waits and while the fake answers."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.waits: list[float] = []
        self.stop_at = float("inf")
        self._lock = threading.Lock()

    def now(self) -> float:
        return self.seconds

    def utc(self) -> dt.datetime:
        return dt.datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=dt.UTC) + dt.timedelta(seconds=self.seconds)

    def wait(self, seconds: float) -> bool:
        with self._lock:
            self.waits.append(seconds)
            self.seconds += seconds
        return self.is_stopped()

    def is_stopped(self) -> bool:
        return self.seconds >= self.stop_at

    def tick(self, seconds: float = 0.25) -> None:
        with self._lock:
            self.seconds += seconds


@contextmanager
def keep_in_memory(windows: dict[tuple[str, str], LimitWindow], token_ids: Sequence[str]) -> Iterator[Windows]:
    """Keep the limits of one process's tokens, where a test is not about others."""
    for key in itertools.product(token_ids, RESOURCES):
        windows.setdefault(key, LimitWindow(*key))
    yield windows


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_github(clock: FakeClock) -> Iterator[Callable[..., FakeGithub]]:
    """Call it with repositories for a fake GitHub that lives on the test's clock."""
    fakes = []

    def make(repos: Iterable[Repo] = (), **values: Any) -> FakeGithub:
        fake = FakeGithub(repos, clock.utc, **({"tokens": [TOKEN]} | values))
        fake.on_request = clock.tick
        fake.on_hang = partial(clock.tick, HANG_S)
        fakes.append(fake)
        return fake

    yield make
    for fake in fakes:
        fake.close()
    # Those whose answer did not come get the end of it now.
    for thread in threading.enumerate():
        if thread.name == "github":
            thread.join()


@pytest.fixture
def run(engine: sa.Engine, clock: FakeClock) -> Callable[..., dict[str, Any]]:
    """Call it with a fake for a whole crawl and its figures."""

    def crawl(
        fake: FakeGithub, *languages: str, plan: str = "complete", tokens: Iterable[str] = (TOKEN,), **values: Any
    ) -> dict[str, Any]:
        settings = IngestSettings(
            github_api_url=fake.url, github_tokens=[SecretStr(token) for token in tokens], **values
        )
        return run_crawl(engine, settings, Plan(plan, languages or settings.languages), clock)

    return crawl
