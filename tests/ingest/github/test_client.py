"""The client alone: every limit is obeyed, every failure has an end, and nobody sees the token."""

import logging
import os
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from ingest.config import IngestSettings
from ingest.github.answers import ApiError, BadTokens, Rejected, Unreachable
from ingest.github.client import Client
from ingest.github.clock import RealClock, Stopped
from tests.ingest.github.conftest import TOKEN, FakeClock, keep_in_memory
from tests.ingest.github.fake import FakeGithub
from tests.ingest.github.universe import make_repo

REPOS = [make_repo(f"a/r{n}", n) for n in range(250)]


@pytest.fixture
def make_client(clock: FakeClock) -> Iterator[Callable[..., Client]]:
    """Call it with a fake for a client with alice's token, or with others."""
    clients = []

    def make(fake: FakeGithub, *tokens: str, timeout_s: float = 30.0, **values: Any) -> Client:
        given = [SecretStr(token) for token in tokens or (TOKEN,) if token]
        book = partial(keep_in_memory, {})
        client = Client(values.get("url", fake.url), given, values.get("clock", clock), book, timeout_s=timeout_s)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def search(client: Client, **values: Any) -> Any:
    return client.fetch(client.search_url("language:Python"), **values)


def test_pages_are_followed_by_their_links(
    make_github: Callable[..., FakeGithub], make_client: Callable[..., Client]
) -> None:
    client = make_client(make_github(REPOS))
    answer, names = search(client), []
    while True:
        names += [item["full_name"] for item in answer.body["items"]]
        if answer.next_url is None:
            break
        answer = client.fetch(answer.next_url)
    assert names == [repo.full_name for repo in REPOS]


def test_a_page_that_is_known_costs_nothing_for_the_token_that_knows_it(
    make_github: Callable[..., FakeGithub], make_client: Callable[..., Client]
) -> None:
    fake = make_github(REPOS, tokens=[TOKEN, "other"])
    client = make_client(fake, TOKEN, "other")
    first = search(client)
    left = client.remaining("search")
    again = search(client, etags={first.token_id: first.etag})
    assert (again.body, again.token_id, again.etag) == (None, first.token_id, first.etag)
    assert client.remaining("search") == left
    stranger = search(client, etags={"another token": first.etag})
    assert stranger.body is not None


@pytest.mark.parametrize("skew_s", [0.0, 3600.0, -86_400.0])
def test_no_request_is_sent_into_a_closed_window_whatever_the_clocks_say(
    skew_s: float, make_github: Callable[..., FakeGithub], make_client: Callable[..., Client], clock: FakeClock
) -> None:
    fake = make_github(REPOS)
    fake.skew_s = skew_s
    client = make_client(fake)
    for _ in range(65):
        search(client)
    assert fake.violations == []
    assert 120 <= clock.seconds <= 190, "two windows are waited for, and no more"


def test_without_a_token_there_are_ten_searches_a_minute(
    make_github: Callable[..., FakeGithub], make_client: Callable[..., Client], clock: FakeClock
) -> None:
    fake = make_github(REPOS)
    client = make_client(fake, "")
    for _ in range(21):
        search(client)
    assert fake.violations == []
    assert clock.seconds >= 120
    assert all("authorization" not in headers for headers in fake.headers)


def test_each_token_has_a_window_of_its_own_and_the_least_loaded_is_used(
    make_github: Callable[..., FakeGithub], make_client: Callable[..., Client], clock: FakeClock
) -> None:
    fake = make_github(REPOS, tokens=["one", "two", "three"])
    client = make_client(fake, "one", "two", "three")
    for _ in range(84):
        search(client)
    used = [headers["authorization"] for headers in fake.headers]
    assert sorted(used.count(f"Bearer {token}") for token in ("one", "two", "three")) == [28, 28, 28]
    assert fake.violations == []
    assert clock.seconds < 62


@pytest.mark.parametrize(
    ("retry_after", "refusals", "least_s"),
    [(90, 1, 90), (7, 1, 7), (None, 1, 60), (None, 3, 60 + 120 + 240)],
)
def test_a_secondary_limit_is_waited_for_as_it_says_else_a_minute_that_doubles(
    retry_after: int | None,
    refusals: int,
    least_s: float,
    make_github: Callable[..., FakeGithub],
    make_client: Callable[..., Client],
    clock: FakeClock,
) -> None:
    fake = make_github(REPOS)
    fake.retry_after = retry_after
    fake.moods.extend(["secondary"] * refusals)
    assert search(make_client(fake)).body["total_count"] == 250
    assert fake.violations == []
    assert least_s <= clock.seconds <= least_s + 5


@pytest.mark.parametrize(("mood", "reason"), [("500", "server_error"), ("broken", "broken_body"), ("hang", "timeout")])
def test_what_fails_is_tried_again_and_given_up_with_its_reason(
    mood: str,
    reason: str,
    make_github: Callable[..., FakeGithub],
    make_client: Callable[..., Client],
    clock: FakeClock,
) -> None:
    fake = make_github(REPOS)
    client = make_client(fake)
    fake.moods.extend([mood] * 4)
    assert search(client).body["total_count"] == 250
    assert sum(clock.waits) >= 1 + 2 + 4 + 8
    fake.moods.extend([mood] * 5)
    with pytest.raises(Unreachable) as failed:
        search(client)
    assert failed.value.reason == reason


def test_nobody_there_is_a_failure_of_the_connection(clock: FakeClock) -> None:
    client = Client("http://127.0.0.1:9", [], clock, partial(keep_in_memory, {}))
    with pytest.raises(Unreachable, match="connection"):
        search(client)


def test_a_redirect_is_followed_on_the_own_host_alone(
    make_github: Callable[..., FakeGithub], make_client: Callable[..., Client]
) -> None:
    fake, stranger = make_github(REPOS), make_github(REPOS)
    fake.moved_path = "/moved/search/repositories"
    assert search(make_client(fake)).body["total_count"] == 250
    fake.moved_path, fake.redirect_to = "", f"{stranger.url}/search/repositories?q=language:Python"
    with pytest.raises(Rejected, match="is not the API's host"):
        search(make_client(fake))
    fake.redirect_to = "/search/repositories"
    with pytest.raises(Rejected, match="redirects"):
        search(make_client(fake))
    assert stranger.headers == []


def test_what_github_does_not_accept_is_not_asked_twice(
    make_github: Callable[..., FakeGithub], make_client: Callable[..., Client]
) -> None:
    fake = make_github(REPOS)
    client = make_client(fake)
    with pytest.raises(Rejected, match=r"Only the first 1000 search results"):
        client.fetch(client.search_url("language:Python") + "&page=11")
    assert client.num_requests == 1


def test_a_bad_token_is_dropped_and_without_any_left_that_is_said(
    make_github: Callable[..., FakeGithub], make_client: Callable[..., Client]
) -> None:
    fake = make_github(REPOS)
    client = make_client(fake, "expired", TOKEN)
    for _ in range(3):
        assert search(client).body["total_count"] == 250
    assert fake.answers["401"] == 1
    with pytest.raises(BadTokens, match="CODELUPE_GITHUB_TOKENS"):
        search(make_client(fake, "expired"))


def test_a_stop_ends_a_wait_at_once_and_an_answer_that_does_not_come(
    make_github: Callable[..., FakeGithub], make_client: Callable[..., Client]
) -> None:
    fake = make_github(REPOS)
    for mood in ("secondary", "hang"):
        stop = threading.Event()
        client = make_client(fake, clock=RealClock(stop), timeout_s=60)
        fake.moods.append(mood)
        timer = threading.Timer(0.2, stop.set)
        timer.start()
        started = time.monotonic()
        with pytest.raises(Stopped):
            search(client)
        timer.join()
        assert time.monotonic() - started < 60
        fake._closed_until.clear()


def test_the_token_is_in_no_log_no_exception_no_representation_no_address_and_no_process_list(
    make_github: Callable[..., FakeGithub], make_client: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    """Every way in which a request can end, with every library logging all that it can."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx2", "httpcore2", "httpcore2.http11", "httpcore2.connection"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    fake = make_github(REPOS)
    client = make_client(fake)
    said, chained = [repr(client), str(vars(client)), repr(client._auths)], []
    for moods in ([], ["secondary"], ["500"] * 5, ["broken"] * 5, ["hang"] * 5):
        fake.moods.extend(moods)
        try:
            search(client)
        except ApiError as error:
            said += ["".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())]
            chained += [error.__cause__, error.__context__]
    assert chained == [None] * 6
    with pytest.raises(BadTokens) as refused:
        search(make_client(fake, TOKEN + "-expired"))
    said += [str(refused.value), caplog.text, *(str(vars(record)) for record in caplog.records)]
    said += [
        subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(os.getpid())], capture_output=True, text=True).stdout
    ]
    said += [repr(IngestSettings(github_tokens=[SecretStr(TOKEN)]))]
    assert "HTTP Request: GET" in caplog.text, "httpx has logged"
    assert [text for text in said if TOKEN in text] == []
    assert all(TOKEN not in query for query in fake.queries)
    assert all(headers.get("authorization", "").startswith("Bearer ") for headers in fake.headers)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"github_api_url": "http://api.github.com"}, "http only on this machine"),
        ({"github_api_url": "https://user:pass@host"}, "not the address of an API"),
        ({"github_api_url": "file:///etc"}, "not the address of an API"),
        ({"github_tokens": ["with\u00e4umlaut"]}, "a token has characters that no token has"),
    ],
)
def test_settings_that_would_leak_or_fail_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says) as refused:
        IngestSettings.model_validate(values)
    assert "umlaut" not in str(refused.value)
    assert "pass@" not in str(refused.value)


def test_several_tokens_may_come_from_one_file() -> None:
    tokens = IngestSettings(github_tokens=[SecretStr("one\ntwo\n"), SecretStr("three")]).github_tokens
    assert [token.get_secret_value() for token in tokens] == ["one", "two", "three"]
