"""A GitHub that means harm: whatever it answers has a reason, costs itself alone, and every crawl comes to its end."""

import gzip
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa

from ingest.github import crawler
from ingest.github.windows import GITHUB_LANGUAGES
from tests.ingest.github.conftest import FakeClock
from tests.ingest.github.fake import FakeGithub
from tests.ingest.github.universe import make_repo

Lie = tuple[int, Mapping[str, str], bytes | None, str | None]

_BAD_VALUES = (
    {"stargazers_count": 10**30},
    {"forks_count": 1 << 70},
    {"size": -1},
    {"size": float("nan")},
    {"created_at": "2020-01-01T00:00:00"},  # of which time zone?
    {"pushed_at": "9999-12-31T23:59:59-23:00"},
    {"node_id": ""},
    {"node_id": "R_1\x1b[2J"},
    {"node_id": "".join(chr(33 + n * n % 89) for n in range(4000))},
    {"full_name": "a/.."},
    {"full_name": "a/."},
    {"full_name": "../../etc/passwd"},
    {"full_name": "a/%2f..%2fb"},
    {"full_name": "a/b/c"},
    {"full_name": "a/b\n"},
    {"full_name": "a/b\x1b[31m"},
    {"full_name": "a/b\u202e"},
    {"full_name": "--upload-pack=x/b"},
    {"topics": "all"},
    {"owner": None},
    {"owner": {"login": "a/../b", "id": 7}},
    {"owner": {"login": "a", "id": -7}},
    {"html_url": None},
)
_GOOD_VALUES = ({"description": "\0\ud800\u202e"}, {"topics": ["\0a", "\ud800", "\u202eb"]}, {"full_name": "a/.github"})
# Each is well formed, and says two things at once.
_CONTRADICTIONS = {
    "foreign_clone_url": {"clone_url": "https://evil.example/a/x.git"},
    "contradictory": {"html_url": "https://{host}/a/other"},
}


def page(total: object = 0, is_incomplete: object = "false", items: object = "[]") -> bytes:
    return f'{{"total_count": {total}, "incomplete_results": {is_incomplete}, "items": {items}}}'.encode()


LIES: dict[str, Lie] = {
    "HTML": (200, {"Content-Type": "text/html"}, b"<html><body>Whoa there!</body></html>", "broken_body"),
    "nothing": (200, {}, b"", "broken_body"),
    "deep": (200, {}, b"[" * 200_000, "broken_body"),
    "null": (200, {}, b"null", "broken_body"),
    "a list": (200, {}, b"[]", "broken_body"),
    "a number": (200, {}, b"7", "broken_body"),
    "another object": (200, {}, b'{"message": "hello"}', "broken_body"),
    "no end": (200, {}, b" " * ((8 << 20) + 1), "broken_body"),
    "infinite": (200, {}, page("Infinity"), "broken_body"),
    "no number": (200, {}, page("NaN"), "broken_body"),
    "negative": (200, {}, page(-5), "broken_body"),
    "huge": (200, {}, page("1" + "0" * 30), "broken_body"),
    "a digit too many": (200, {}, page("1" * 5000), "broken_body"),
    "a half": (200, {}, page(0.5), "broken_body"),
    "a truth": (200, {}, page("true"), "broken_body"),
    "a text": (200, {}, page('"12"'), "broken_body"),
    "incomplete in words": (200, {}, page(0, '"no"'), "broken_body"),
    "items by name": (200, {}, page(0, "false", "{}"), "broken_body"),
    "too many items": (200, {}, page(0, "false", f"[{','.join(['1'] * 101)}]"), "broken_body"),
    "items that are none": (200, {}, page(5, "false", '[null, 5, "x", [], {}]'), None),
    "not UTF-8": (200, {}, b'{"total_count": "\xff\xfe"}', "broken_body"),
    "gzip bomb": (200, {"Content-Encoding": "gzip"}, gzip.compress(b" " * (20 << 20), 1), "broken_body"),
    "gzip in gzip": (200, {"Content-Encoding": "gzip, gzip"}, gzip.compress(gzip.compress(page())), "broken_body"),
    "no gzip": (200, {"Content-Encoding": "gzip"}, page(), "broken_body"),
    "half a gzip": (200, {"Content-Encoding": "gzip"}, gzip.compress(page())[:9], "broken_body"),
    "true gzip": (200, {"Content-Encoding": "gzip"}, gzip.compress(page()), None),
    "another packing": (200, {"Content-Encoding": "br"}, page(), "broken_body"),
    "unasked 304": (304, {}, b"", "broken_body"),
    "no content": (204, {}, b"", "rejected"),
    "gone": (410, {}, None, "rejected"),
    "for legal reasons": (451, {}, None, "rejected"),
    "a teapot": (418, {}, b"\x1b[2Jhello", "rejected"),
    "moved nowhere": (301, {}, b"", "redirects"),
    "moved to no address": (302, {"Location": "http://[::1"}, b"", "broken_address"),
    "moved to a stranger": (302, {"Location": "http://{stranger}/search/repositories"}, b"", "foreign_host"),
    "moved to a stranger's path": (308, {"Location": "//{stranger}/search/repositories"}, b"", "foreign_host"),
    "moved to a login": (307, {"Location": "http://me@{host}/search/repositories"}, b"", "foreign_host"),
    "moved to a file": (301, {"Location": "file:///etc/passwd"}, b"", "foreign_host"),
    "next at a stranger": (
        200,
        {"Link": '<http://{stranger}/search/repositories>; rel="next"'},
        page(),
        "foreign_host",
    ),
    "next at no address": (200, {"Link": '<http://[::1>; rel="next"'}, page(), "broken_address"),
    "next is this": (200, {"Link": '<{url}>; rel="next"'}, page(), "broken_link"),
    "next without end": (200, {"Link": '<{url}1>; rel="next"'}, page(), None),
    "links that are none": (200, {"Link": "<<>>;;; rel=,next" * 100}, page(), None),
}


@pytest.fixture
def fake(make_github: Callable[..., FakeGithub]) -> FakeGithub:
    return make_github([make_repo("a/good", 1)])


def answer_with(
    fake: FakeGithub, monkeypatch: pytest.MonkeyPatch, choose: Callable[[str], Lie | None], **names: str
) -> None:
    """Let the fake answer a query with the status, headers and body that are chosen for it instead of its own."""
    answer = fake._answer

    def lie(path: str, asked: dict[str, str]) -> tuple[int, dict[str, str], bytes] | None:
        fake._windows.clear()
        honest, parts = answer(path, asked), urlsplit(path)
        chosen = choose(parse_qs(parts.query).get("q", [""])[0])
        if chosen is None or honest is None:
            return honest
        status, headers, body, _ = chosen
        values = {"host": fake.host, "url": f"{fake.url}{path}", **names}
        said = {name: value.format(**values) for name, value in headers.items()}
        kept = {name: value for name, value in honest[1].items() if not name.startswith("X-RateLimit")}
        kept.pop("Link", None)
        return status, kept | {"ETag": ""} | said, honest[2] if body is None else body

    monkeypatch.setattr(fake, "_answer", lie)


@pytest.mark.parametrize("first", range(0, len(LIES), 5))
def test_every_lie_costs_its_window_alone_and_has_its_reason(
    first: int,
    fake: FakeGithub,
    make_github: Callable[..., FakeGithub],
    run: Callable[..., dict[str, Any]],
    engine: sa.Engine,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five of them at a time, each to the questions of one language; Python's alone are answered honestly."""
    monkeypatch.setattr(crawler, "_MAX_ATTEMPTS", 1)
    clock.stop_at = 86_400
    stranger = make_github()
    languages = [name for name in GITHUB_LANGUAGES if name != "python"]
    told = dict(zip(languages, list(LIES)[first : first + 5], strict=False))
    by_query = {f"language:{GITHUB_LANGUAGES[language]} ": LIES[lie] for language, lie in told.items()}
    choose = lambda query: next((lie for words, lie in by_query.items() if words in query), None)  # noqa: E731
    answer_with(fake, monkeypatch, choose, stranger=stranger.host)
    report = run(fake, "python", *told)
    assert report["finished"]
    expected = {told[language]: LIES[told[language]][3] for language in told}
    reasons = {
        told[language]: row["reason"]
        for row in report["incomplete"]
        for language in told
        if f"language:{GITHUB_LANGUAGES[language]} " in row["query"]
    }
    assert expected | reasons == expected
    assert reasons == {lie: reason for lie, reason in expected.items() if reason}
    with engine.begin() as conn:
        assert conn.execute(sa.text("SELECT owner, name FROM repositories")).all() == [("a", "good")]
    assert stranger.headers == [], "the token goes to nobody else"


def test_a_malformed_repository_costs_itself_alone(
    fake: FakeGithub, run: Callable[..., dict[str, Any]], engine: sa.Engine, clock: FakeClock
) -> None:
    clock.stop_at = 3600
    named = [{"full_name": f"a/r{n}"} | values for n, values in enumerate((*_BAD_VALUES, *_GOOD_VALUES))]
    addresses = [f"https://{fake.host}/{values['full_name']}" for values in named]
    whole = [
        {"html_url": address, "clone_url": f"{address}.git"} | values
        for values, address in zip(named, addresses, strict=True)
    ]
    repos = [make_repo(f"a/r{n}", n, values=values) for n, values in enumerate(whole)]
    fake.set_repos([*repos, make_repo("a/good", 1000)])
    report = run(fake, "python")
    assert report["finished"]
    assert report["repositories"] == {"queued": len(_GOOD_VALUES) + 1, "malformed": len(_BAD_VALUES)}


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "5"}, "primary_limit"),
        (403, {"X-RateLimit-Remaining": "0"}, "primary_limit"),
        (429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "soon"}, "primary_limit"),
        (429, {"Retry-After": "0"}, "secondary_limit"),
    ],
    ids=["always used up", "no reset", "a reset that is no time", "no pause"],
)
def test_a_limit_that_never_ends_is_given_up(
    status: int,
    headers: dict[str, str],
    reason: str,
    fake: FakeGithub,
    run: Callable[..., dict[str, Any]],
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crawler, "_MAX_ATTEMPTS", 1)
    clock.stop_at, began = 86_400, clock.seconds
    answer_with(fake, monkeypatch, lambda _: (status, headers, None, None))
    report = run(fake, "python", lease_s=86_400)
    assert report["finished"]
    assert [row["reason"] for row in report["incomplete"]] == [reason]
    assert len(fake.headers) == 9
    # A minute that doubles, or what the answer says: never at once.
    assert clock.seconds - began >= 8 * 60


@pytest.mark.parametrize(("reason", "values"), _CONTRADICTIONS.items())
def test_who_says_two_things_of_itself_is_refused(
    reason: str, values: dict[str, str], fake: FakeGithub, run: Callable[..., dict[str, Any]]
) -> None:
    fake.set_repos([make_repo("a/x", 1, values={name: value.format(host=fake.host) for name, value in values.items()})])
    assert run(fake, "python")["refused"] == {reason: 1}


def test_a_cursor_that_leads_to_another_host_is_given_up_and_its_window_begins_again(
    fake: FakeGithub,
    run: Callable[..., dict[str, Any]],
    clock: FakeClock,
) -> None:
    clock.stop_at = 86_400
    with pytest.MonkeyPatch.context() as monkeypatch:
        link = {"Link": '<https://elsewhere.test/search/>; rel="next"'}
        answer_with(fake, monkeypatch, lambda _: (200, link, None, None))
        report = run(fake, "python")
        assert [row["reason"] for row in report["incomplete"]] == ["foreign_host"]
    report = run(fake, "python")
    assert (report["windows"]["kept"], report["incomplete"]) == (0, [])
