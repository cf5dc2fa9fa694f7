"""Limits as GitHub says them and as processes share them: no request goes into a window that is known to be closed."""

import datetime as dt
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import format_datetime
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from ingest.github.client import Client
from ingest.github.clock import RealClock
from ingest.github.limits import Limits
from ingest.github.pauses import read_retry_after
from schema.crawl_limits import Windows, open_limits
from schema.database import create_engine
from tests.ingest.github.conftest import TOKEN, FakeClock, keep_in_memory
from tests.ingest.github.fake import FakeGithub
from tests.ingest.github.universe import make_repo

NOW = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)


def date(seconds: float) -> str:
    """Return that much after now as a header says it."""
    return format_datetime(NOW + dt.timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("said", "seconds", "fault"),
    [
        ("90", 90, ""),
        (" 007 ", 7, ""),
        ("1.5", 1, ""),
        ("0", None, "names no time to come"),
        ("-5", None, "names no time to come"),
        ("", None, "names no time to come"),
        ("soon", None, "names no time to come"),
        ("nan", None, "names no time to come"),
        ("99999", 86_400, "more than a day"),
        ("9" * 5000, 86_400, "more than a day"),
        (date(120), 120, ""),
        (date(0), None, "names no time to come"),
        (date(-3600), None, "names no time to come"),
        (date(10 * 86_400), 86_400, "more than a day"),
        ("Sun, 01 Nov 2026 25:61:00 GMT", None, "names no time to come"),
        (None, None, ""),
    ],
)
def test_a_pause_is_seconds_or_a_date_and_never_more_than_a_day(
    said: str | None, seconds: float | None, fault: str
) -> None:
    for skew_s in (0, 3600, -86_400):
        ours = NOW - dt.timedelta(seconds=skew_s)  # a date is one of the server's clock, whatever ours says
        headers = {"date": date(0)} | ({} if said is None else {"retry-after": said})
        got, words = read_retry_after(headers, ours)
        assert got == seconds
        assert (fault in words) is bool(words or not fault), words


@pytest.mark.parametrize(
    ("remaining", "reset_s", "wait_s"),
    [
        (0, 30, 31),
        (0, 0, 1),
        (0, -2, 1),  # it has just passed while the answer travelled
        (0, -3600, 61),  # it is no reset to come: nobody knows
        (0, 1e300, 86_401),
        (0, "inf", 86_401),
        (0, "nan", 86_401),
        (0, "-inf", 61),
        (10, 60, 6.1),
        (10, -3600, 0.1),
        (-1, 30, 31),
        (10**30, 60, 0.0),
    ],
)
@pytest.mark.parametrize("skew_s", [0, 7200])
def test_a_window_opens_at_its_reset_by_the_servers_clock(
    remaining: int, reset_s: float | str, wait_s: float, skew_s: float, clock: FakeClock
) -> None:
    now = clock.utc().timestamp() + skew_s
    reset = reset_s if isinstance(reset_s, str) else str(now + reset_s)
    headers = {"x-ratelimit-remaining": str(remaining), "x-ratelimit-reset": reset}
    if skew_s:
        headers["date"] = format_datetime(clock.utc() + dt.timedelta(seconds=skew_s), usegmt=True)
    limits = Limits(["alice"], partial(keep_in_memory, {}), clock, timeout_s=5)
    assert limits.take_turn("search") == ("alice", 0)
    limits.end_turn("alice", "search", headers)
    assert limits.take_turn("search")[1] == pytest.approx(wait_s, abs=0.01)
    assert limits.take_turn("core")[1] == 0, "each resource has its own window"


def test_what_a_dead_process_may_have_been_told_closes_the_window_for_a_minute(clock: FakeClock) -> None:
    book = partial(keep_in_memory, {})
    dead, other = (Limits(["alice"], book, clock, timeout_s=5) for _ in "xx")
    assert dead.take_turn("search") == ("alice", 0)
    until = clock.seconds + 60
    while (wait_s := other.take_turn("search")[1]) > 0:
        clock.wait(wait_s)
    assert until <= clock.seconds < until + 1
    dead.end_turn("alice", "search")
    assert dead.take_turn("search")[1] > 0, "the turn is the other's: who wakes up late does not end it"


def test_who_was_told_of_a_pause_while_the_database_was_away_obeys_it(clock: FakeClock) -> None:
    windows: Any = {}
    is_away = False

    @contextmanager
    def book(token_ids: Sequence[str]) -> Iterator[Windows]:
        with keep_in_memory(windows, token_ids) as opened:
            if is_away:
                raise sa.exc.OperationalError("", None, Exception("away"))
            yield opened

    limits = Limits(["alice"], book, clock, timeout_s=5)
    limits.take_turn("search")
    is_away = True
    with pytest.raises(sa.exc.OperationalError):
        limits.end_turn("alice", "search", {}, pause_s=600)
    is_away = False
    assert limits.take_turn("search") == ("alice", 600)


def test_processes_with_the_same_token_share_its_window(
    make_github: Callable[..., FakeGithub], database_url: str, clock: FakeClock
) -> None:
    """Three at once, each with an engine and a client of its own, none of which knows of the others."""
    fake = make_github([make_repo("a/b")])
    fake.latency_s = 0.002
    fake.moods.extend([None] * 20 + ["secondary"] + [None] * 20 + ["secondary"])
    done = []

    def search() -> None:
        engine = create_engine(database_url, application_name="tests")
        # Those who wait move the clock: a slow answer must not look like none.
        client = Client(fake.url, [SecretStr(TOKEN)], clock, partial(open_limits, engine), timeout_s=1e6)
        for _ in range(25):
            client.fetch(client.search_url("language:Python"))
            done.append(client)
        client.close()
        engine.dispose()

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 75
    assert fake.violations == []
    assert fake.most_at_once == 1
    assert clock.seconds >= 90 + 90, "as two refusals asked for"


def test_the_tokens_themselves_are_nowhere_in_the_database(
    make_github: Callable[..., FakeGithub], engine: sa.Engine, clock: FakeClock
) -> None:
    client = Client(make_github([]).url, [SecretStr(TOKEN)], clock, partial(open_limits, engine))
    client.fetch(client.search_url("language:Python"))
    client.close()
    with engine.begin() as conn:
        rows = conn.execute(sa.text("SELECT token_id, resource, remaining FROM crawl_limits ORDER BY 2")).all()
    assert [(row.resource, row.remaining) for row in rows] == [("core", None), ("search", 29)]
    assert all(TOKEN not in row.token_id and len(row.token_id) == 12 for row in rows)


def test_whoever_sets_the_machines_clock_moves_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = RealClock(threading.Event())
    clock.agree(NOW)
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert NOW <= clock.utc() < NOW + dt.timedelta(minutes=1)
