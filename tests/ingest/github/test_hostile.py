"""Answers that no honest API gives: each costs itself alone, and every crawl comes to its end."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from tests.ingest.github.conftest import FakeClock
from tests.ingest.github.fake import FakeGithub
from tests.ingest.github.universe import make_repo

_PAGE = b'{"total_count": %b, "incomplete_results": false, "items": []}'
_BAD_VALUES = (
    {"stargazers_count": 10**30},
    {"forks_count": 1 << 70},
    {"size": -1},
    {"created_at": "2020-01-01T00:00:00"},  # of which time zone?
    {"pushed_at": "9999-12-31T23:59:59-23:00"},
    {"node_id": ""},
    {"node_id": "".join(chr(33 + n * n % 89) for n in range(4000))},
    {"full_name": "a/.."},
    {"full_name": "a/."},
    {"full_name": "a/b\n"},
    {"full_name": "--upload-pack=x/b"},
    {"topics": "all"},
)
_GOOD_VALUES = ({"description": "\0\ud800\u202e"}, {"topics": ["\0a", "\ud800", "\u202eb"]}, {"full_name": "a/.github"})


@pytest.fixture
def fake(make_github: Callable[..., FakeGithub]) -> FakeGithub:
    return make_github([make_repo("a/good", 1)])


def answer_with(
    fake: FakeGithub, monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], body: bytes | None = None
) -> None:
    """Let the fake answer everything with this status, these headers, and this body instead of its own."""
    answer = fake._answer

    def lie(path: str, asked: dict[str, str]) -> tuple[int, dict[str, str], bytes] | None:
        fake._windows.clear()
        honest = answer(path, asked)
        assert honest is not None
        kept = {name: value for name, value in honest[1].items() if not name.startswith("X-RateLimit")}
        return status, kept | headers, honest[2] if body is None else body

    monkeypatch.setattr(fake, "_answer", lie)


def test_a_malformed_repository_costs_itself_alone(
    fake: FakeGithub, run: Callable[..., dict[str, Any]], engine: sa.Engine, clock: FakeClock
) -> None:
    clock.stop_at = 3600
    named = [{"full_name": f"a/r{n}"} | values for n, values in enumerate((*_BAD_VALUES, *_GOOD_VALUES))]
    addresses = [f"https://{fake.host}/{values['full_name']}" for values in named]
    whole = [
        values | {"html_url": address, "clone_url": f"{address}.git"}
        for values, address in zip(named, addresses, strict=True)
    ]
    repos = [make_repo(f"a/r{n}", n, values=values) for n, values in enumerate(whole)]
    fake.set_repos([*repos, make_repo("a/good", 1000)])
    report = run(fake, "python")
    assert report["finished"]
    assert report["repositories"] == {"queued": len(_GOOD_VALUES) + 1, "malformed": len(_BAD_VALUES)}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" * 200_000, "broken_body"),
        (_PAGE % b"Infinity", "broken_body"),
        (_PAGE % b"-5", "broken_body"),
        (_PAGE % (b"1" + b"0" * 30), "broken_body"),
        (b"null", "broken_body"),
    ],
    ids=["deep", "infinite", "negative", "huge", "null"],
)
def test_a_page_that_is_none_is_kept_for_later(
    body: bytes,
    reason: str,
    fake: FakeGithub,
    run: Callable[..., dict[str, Any]],
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock.stop_at = 3600
    answer_with(fake, monkeypatch, 200, {}, body)
    report = run(fake, "python")
    assert report["finished"]
    assert [row["reason"] for row in report["incomplete"]] == [reason]


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (304, {}, "broken_body"),
        (302, {"Location": "http://[::1"}, "broken_address"),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "5"}, "primary_limit"),
        (429, {"Retry-After": "0"}, "secondary_limit"),
        (200, {"Link": '</search/repositories?q=x>; rel="next"', "X-RateLimit-Remaining": "-1"}, "broken_body"),
    ],
    ids=["unasked 304", "no address", "always used up", "no pause", "no link"],
)
def test_a_reply_that_makes_no_sense_has_an_end(
    status: int,
    headers: dict[str, str],
    reason: str,
    fake: FakeGithub,
    run: Callable[..., dict[str, Any]],
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock.stop_at = 86_400
    answer_with(fake, monkeypatch, status, headers)
    report = run(fake, "python")
    assert report["finished"]
    assert [row["reason"] for row in report["incomplete"]] == [reason]
    assert len(fake.headers) <= 40


def test_a_cursor_that_leads_to_another_host_is_given_up_and_its_window_begins_again(
    fake: FakeGithub,
    run: Callable[..., dict[str, Any]],
    clock: FakeClock,
) -> None:
    clock.stop_at = 86_400
    with pytest.MonkeyPatch.context() as monkeypatch:
        answer_with(fake, monkeypatch, 200, {"Link": '<https://elsewhere.test/search/>; rel="next"', "ETag": ""})
        report = run(fake, "python")
        assert [row["reason"] for row in report["incomplete"]] == ["foreign_host"]
    report = run(fake, "python")
    assert (report["windows"]["kept"], report["incomplete"]) == (0, [])
