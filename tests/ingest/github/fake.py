"""A small GitHub on loopback: search over generated repositories, with its limits, pages, ETags and moods.

It speaks the protocol of the documentation: qualifiers with ranges, 1,000 results at most and 422 beyond, Link headers,
304 for a known ETag that costs nothing, primary and secondary limits per token, redirects, broken answers. It counts
what a well-behaved client never does: `violations` are requests into a window that it has been told is closed.
"""

import datetime as dt
import hashlib
import json
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import numpy.typing as npt

from tests.ingest.github.universe import Repo, date_owner, number_owner

_QUALIFIER = re.compile(r'(?:(\w+):)?("[^"]*"|\S+)')
_NUMBERS: dict[str, Callable[[Repo], int]] = {
    "stars": lambda repo: repo.stars,
    "forks": lambda repo: repo.forks,
    "created": lambda repo: repo.created.toordinal(),
    "pushed": lambda repo: repo.pushed.toordinal(),
}


class FakeGithub:
    """The state of the fake; `url` is where it listens."""

    def __init__(self, repos: Iterable[Repo], utc: Callable[[], dt.datetime], *, tokens: Iterable[str] = ()) -> None:
        self.tokens, self.search_limit, self.anonymous_limit, self.window_s = set(tokens), 30, 10, 60.0
        self.utc, self.skew_s, self.latency_s = utc, 0.0, 0.0
        self.on_request: Callable[[], None] = lambda: None
        self.on_hang: Callable[[], None] = lambda: None
        # What happens to the next requests: a mood's name, or None for a plain answer.
        self.moods: deque[str | None] = deque()
        self.choose_mood: Callable[[], str | None] = lambda: self.moods.popleft() if self.moods else None
        # What the next pages say that there is, or what is said always.
        self.counts: deque[int] = deque()
        self.choose_count: Callable[[int], int] = lambda num: self.counts.popleft() if self.counts else num
        self.retry_after: int | None = 90
        self.incomplete_above = float("inf")  # a search with more results is not done to its end
        self.answers: Counter[str] = Counter()  # by status or mood
        self.queries: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.violations: list[str] = []
        self._num_open = self.most_at_once = 0
        self.asked_owners: list[str] = []
        self.lost_owners: set[str] = set()
        self.moved_path = ""
        self.redirect_to = ""
        self.set_repos(repos)
        self._windows: dict[str, tuple[float, int]] = {}
        self._closed_until: dict[str, float] = {}
        self._core_left: dict[str, int] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(self))
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"
        self._hang = threading.Event()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._hang.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def set_repos(self, repos: Iterable[Repo]) -> None:
        """Show other repositories from now on."""
        self._by_language: dict[str, list[Repo]] = {}
        for repo in sorted(repos, key=lambda repo: (-repo.stars, repo.number)):
            if not repo.fork:  # forks are not shown unless asked for
                self._by_language.setdefault(repo.language.lower(), []).append(repo)
        self._columns = {
            (language, name): np.array([get(repo) for repo in repos])
            for language, repos in self._by_language.items()
            for name, get in _NUMBERS.items()
        }
        self._results: dict[str, list[Repo]] = {}

    @property
    def num_searches(self) -> int:
        """Return the search requests that were answered with a page or with 304."""
        return self.answers["200"] + self.answers["304"]

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes] | None:
        """Return status, headers and body; None hangs until the client goes."""
        self.on_request()
        with self._lock:
            self.headers.append(headers)
            return self._answer(path, headers)

    def count(self, change: int) -> None:
        """Take it that a request has come, or has gone."""
        with self._lock:
            self._num_open += change
            self.most_at_once = max(self.most_at_once, self._num_open)

    def _answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes] | None:
        now = self.utc().timestamp() + self.skew_s
        token = headers.get("authorization", "").removeprefix("Bearer ")
        own = {"Date": formatdate(now, usegmt=True)}
        if token and token not in self.tokens:
            return self._say(401, own, "Bad credentials")
        if now < self._closed_until.get(token, 0.0):
            self.violations.append(f"secondary {path}")
            return self._say(403, own, "You have exceeded a secondary rate limit")
        mood = self.choose_mood()
        if mood is not None and mood != "incomplete":
            return self._misbehave(mood, token, own, now)
        parts = urlsplit(path)
        if parts.path == "/search/repositories" and self.moved_path:
            return self._say(301, {**own, "Location": f"{self.moved_path}?{parts.query}"}, "Moved Permanently")
        if parts.path == "/search/repositories" and self.redirect_to:
            return self._say(302, {**own, "Location": self.redirect_to}, "Found")
        if parts.path.startswith("/users/"):
            return self._show_owner(parts.path.removeprefix("/users/"), token, own, now)
        if not parts.path.endswith("/search/repositories"):
            return self._say(404, own, "Not Found")
        self.answers["incomplete"] += mood == "incomplete"
        start, left = self._windows.get(token, (now, self.search_limit if token else self.anonymous_limit))
        if now >= start + self.window_s:
            start, left = now, self.search_limit if token else self.anonymous_limit
        limit = {
            "X-RateLimit-Limit": str(self.search_limit if token else self.anonymous_limit),
            "X-RateLimit-Reset": str(int(start + self.window_s) + 1),
            "X-RateLimit-Resource": "search",
        }
        if left <= 0:
            self.violations.append(f"primary {path}")
            return self._say(403, {**own, **limit, "X-RateLimit-Remaining": "0"}, "API rate limit exceeded")
        status, more, body = self._search(parts.query, token, incomplete=mood == "incomplete")
        if status == 200 and headers.get("if-none-match") == more["ETag"]:
            status, body = 304, b""
        else:
            left -= 1
        self._windows[token] = (start, left)
        self.answers[str(status)] += 1
        return status, {**own, **limit, "X-RateLimit-Remaining": str(left), **more}, body

    def _show_owner(self, login: str, token: str, own: dict[str, str], now: float) -> tuple[int, dict[str, str], bytes]:
        left = self._core_left[token] = self._core_left.get(token, 5000 if token else 60) - 1
        if left < 0:
            self.violations.append(f"core {login}")
        self.asked_owners.append(login)
        limit = {"X-RateLimit-Remaining": str(left), "X-RateLimit-Reset": str(int(now) + 3600)}
        if login in self.lost_owners:
            return self._say(404, own | limit, "Not Found")
        account = {"login": login, "id": number_owner(login), "created_at": f"{date_owner(login)}T08:00:00Z"}
        return 200, own | limit | {"X-RateLimit-Resource": "core"}, json.dumps(account).encode()

    def _misbehave(
        self, mood: str, token: str, own: dict[str, str], now: float
    ) -> tuple[int, dict[str, str], bytes] | None:
        self.answers[mood] += 1
        if mood == "hang":
            self.on_hang()
            return None
        if mood == "broken":
            return 200, {**own, "Content-Type": "application/json"}, b'{"total_count": 12, "items": ['
        if mood == "secondary":
            self._closed_until[token] = now + (self.retry_after or 60)
            own = {**own, "Retry-After": str(self.retry_after)} if self.retry_after else own
            return self._say(403, own, "You have exceeded a secondary rate limit")
        return self._say(int(mood), own, "Server Error")

    def _say(self, status: int, headers: dict[str, str], message: str) -> tuple[int, dict[str, str], bytes]:
        self.answers[str(status)] += 1
        return status, headers, json.dumps({"message": message}).encode()

    def _search(self, query: str, token: str, *, incomplete: bool) -> tuple[int, dict[str, str], bytes]:
        asked = {name: values[-1] for name, values in parse_qs(query).items()}
        page, size = int(asked.get("page", 1)), min(100, int(asked.get("per_page", 30)))
        self.queries.append(asked["q"])
        if len(asked["q"]) > 256 or (page - 1) * size >= 1000:
            self.violations.append(f"422 {query}")
            return 422, {}, b'{"message": "Only the first 1000 search results are available"}'
        found = self._results.get(asked["q"])
        if found is None:
            found = self._results[asked["q"]] = self._find(asked["q"])
        incomplete = incomplete or len(found) > self.incomplete_above
        shown = found[(page - 1) * size : min(1000, page * size)]
        if incomplete:
            shown = shown[: len(shown) // 2]
        answer = {
            "total_count": len(found) // 2 if incomplete else self.choose_count(len(found)),
            "incomplete_results": incomplete,
            "items": [repo.to_json(self.host) for repo in shown],
        }
        body = json.dumps(answer).encode()
        headers = {"Content-Type": "application/json; charset=utf-8"}
        headers["ETag"] = f'W/"{hashlib.sha1(body + token.encode()).hexdigest()}"'
        last = -(-min(1000, len(found)) // size)
        if page < last and not incomplete:
            pages = {"next": page + 1, "last": last}
            urls = {
                rel: f"{self.url}/search/repositories?{urlencode({**asked, 'page': n})}" for rel, n in pages.items()
            }
            headers["Link"] = ", ".join(f'<{url}>; rel="{rel}"' for rel, url in urls.items())
        return 200, headers, body

    def _find(self, query: str) -> list[Repo]:
        qualifiers = _QUALIFIER.findall(query)
        (language,) = (value.lower() for name, value in qualifiers if name == "language")
        found = self._by_language.get(language, [])
        is_shown = np.ones(len(found), bool)
        tests: list[Callable[[Repo], bool]] = []
        for name, value in qualifiers if found else ():
            if name in _NUMBERS:
                is_shown &= _in_range(name, value, self._columns[language, name])
            elif name == "archived":
                tests.append(lambda repo, wanted=value == "true": repo.archived is wanted)
            elif not name:
                tests.append(_make_phrase(value))
            elif name != "language" and (name, value) != ("is", "public"):
                raise AssertionError(f"the fake does not know {name}:{value}")
        shown = (found[place] for place in np.flatnonzero(is_shown))
        return [repo for repo in shown if all(test(repo) for test in tests)]


def _in_range(name: str, text: str, column: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    read: Callable[[str], int] = (
        (lambda day: dt.date.fromisoformat(day).toordinal()) if name in ("created", "pushed") else int
    )
    if text.startswith((">=", "<=")):
        low, high = (text[2:], "*") if text[0] == ">" else ("*", text[2:])
    else:
        low, high = text.split("..") if ".." in text else (text, text)
    is_above: npt.NDArray[np.bool_] = np.array(True) if low == "*" else column >= read(low)
    is_below: npt.NDArray[np.bool_] = np.array(True) if high == "*" else column <= read(high)
    return is_above & is_below


def _make_phrase(text: str) -> Callable[[Repo], bool]:
    phrase = re.compile(rf"\b{re.escape(text.strip(chr(34)).lower())}\b")
    return lambda repo: any(
        phrase.search(text.lower()) for text in (repo.full_name.partition("/")[2], repo.description or "", *repo.topics)
    )


def _make_handler(fake: FakeGithub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            fake.count(1)
            if fake.latency_s:
                time.sleep(fake.latency_s)
            answer = fake.answer(self.path, {name.lower(): value for name, value in self.headers.items()})
            fake.count(-1)
            if answer is None:
                fake._hang.wait()
                self.close_connection = True
                return
            status, headers, body = answer
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    return Handler
