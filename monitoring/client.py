"""A running daemon as the monitor sees it: asked over HTTP, by ETags; whatever goes wrong is words, and asked again."""

import datetime as dt
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from monitoring.answers import Decisions, Status, printable
from monitoring.hosts import is_loopback

_MAX_BODY_BYTES: Final = 4 << 20
_TIMEOUT_S: Final = 5.0
_MOST_AHEAD_S: Final = 1e8
_NUM_DECISIONS: Final = 5
_DECISIONS: Final = f"/v1/decisions?limit={_NUM_DECISIONS}"
T = TypeVar("T", bound=BaseModel)


class NoAnswer(Exception):
    """The service said nothing that can be used; the message says what came instead."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a service said; without an answer what it said last, and since when it is silent."""

    url: str
    status: Status | None = None
    decisions: Decisions | None = None
    said: dict[str, Any] | None = None
    """Both answers as they came."""
    ahead_s: float = 0.0
    """Seconds by which the service's clock is ahead of ours."""
    error: str = ""
    """Why there is no answer; empty where there is one."""
    silent_since: dt.datetime | None = None
    note: str = ""
    """What was not answered beside the status."""


def check_url(url: str) -> str:
    """Return a service's address without a slash at its end. Raises ValueError, never repeating a password."""
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(whole)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("give the address of a service, such as http://127.0.0.1:8090")
    if "@" in parts.netloc:
        raise ValueError("an address is seen by everybody here: give the token by CODELUPE_API_TOKEN_FILE, not in it")
    if parts.query or parts.fragment:
        raise ValueError("give the address alone, without ? and #")
    return whole.rstrip("/")


class Service:
    """Asks one service; close it."""

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._look = Look(url)
        self._known: dict[str, tuple[str, bytes]] = {}
        headers = {"Accept-Encoding": "identity", "User-Agent": "codelupe-monitor"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        # A proxy of the environment is for other machines than this one.
        is_here = is_loopback(urlsplit(url).hostname or "")
        # A connection each time: one that the service closed meanwhile would look like an outage.
        limits = httpx2.Limits(max_keepalive_connections=0)
        self._http = httpx2.Client(timeout=timeout_s, headers=headers, limits=limits, trust_env=not is_here)

    def __enter__(self) -> Self:
        """Ask when `look` is called."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what is still open."""
        self._http.close()

    def look(self) -> Look:
        """Ask what is new, and return what is known; takes seconds where nobody answers."""
        last = self._look
        try:
            body, ahead_s = self._ask("/status")
            status, said = _read(body, Status)
        except NoAnswer as error:
            since = last.silent_since or dt.datetime.now(dt.UTC)
            self._look = Look(
                last.url, last.status, last.decisions, last.said, last.ahead_s, str(error), silent_since=since
            )
            return self._look
        decisions, listed, note = None, None, ""
        try:
            decisions, listed = _read(self._ask(_DECISIONS)[0], Decisions)
        except NoAnswer as error:  # the database is away, or a token is asked for: /status has those of a moment ago
            note = f"decisions as /status has them: {error}"
        self._look = Look(last.url, status, decisions, {"status": said, "decisions": listed}, ahead_s, note=note)
        return self._look

    def _ask(self, path: str) -> tuple[bytes, float]:
        """Return the body at a path, and by how many seconds the service's clock is ahead."""
        etag, body = self._known.get(path, ("", b""))
        try:
            headers = {"If-None-Match": etag} if etag else {}
            with self._http.stream("GET", self._look.url + path, headers=headers) as response:
                ahead_s = _compare_clocks(response.headers.get("Date", ""))
                if response.status_code == 304 and etag:
                    return body, ahead_s
                body = self._read_body(response)
        except httpx2.TimeoutException as error:
            raise NoAnswer(f"nothing within {self._timeout_s:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
            raise NoAnswer(printable(str(error)) or type(error).__name__) from error
        if response.status_code != 200:
            raise NoAnswer(_describe_refusal(response.status_code, body))
        self._known[path] = response.headers.get("ETag", ""), body
        return body, ahead_s

    def _read_body(self, response: httpx2.Response) -> bytes:
        """Return the body. Raises NoAnswer where it is long, or comes by drops."""
        body, until = bytearray(), time.monotonic() + self._timeout_s
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                raise NoAnswer(f"an answer of more than {_MAX_BODY_BYTES >> 20} MiB")
            if time.monotonic() > until:
                raise NoAnswer(f"no whole answer within {self._timeout_s:g} s")
        return bytes(body)


def _read(body: bytes, model: type[T]) -> tuple[T, Any]:
    """Return an answer as a model and as it came. Raises NoAnswer where it is not a daemon's."""
    try:
        said = from_json(body, allow_inf_nan=False)
        return model.model_validate(said), said
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise NoAnswer(printable(f"not what a codelupe daemon says: {place}: {first['msg']}")) from error
    except ValueError as error:
        raise NoAnswer(f"not what a codelupe daemon says: {printable(str(error))}") from error


def _describe_refusal(status: int, body: bytes) -> str:
    detail = ""
    with suppress(ValueError, AttributeError):
        detail = printable(str(from_json(body).get("detail") or ""))
    return f"HTTP {status}{': ' if detail else ''}{detail}"


def _compare_clocks(date: str) -> float:
    """Return by how many seconds a Date header is ahead of this machine's clock; 0 where it is none, or absurd."""
    try:
        ahead_s = (parsedate_to_datetime(date) - dt.datetime.now(dt.UTC)).total_seconds()
        return ahead_s if abs(ahead_s) < _MOST_AHEAD_S else 0.0
    except (ValueError, TypeError, OverflowError):
        return 0.0
