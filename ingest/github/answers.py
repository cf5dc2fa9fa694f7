"""What a reply of GitHub's REST API means: an answer that is whole, or an error with its reason. Pure.

No error keeps a request, a response or another exception that might hold the token.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from ingest.github.transport import Reply

_MAX_HOPS: Final = 5
_MOVED: Final = (301, 302, 307, 308)
_LIMITED: Final = (403, 429)
# A 403 that is no refusal of a right says one of these.
_LIMIT_WORDS: Final = re.compile(r"rate limit|abuse|no message", re.IGNORECASE)


class ApiError(Exception):
    """GitHub did not give what was asked for; `reason` is one short word, the message says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Unreachable(ApiError):
    """It was tried often enough for now; later it may go well."""


class Rejected(ApiError):
    """The request itself is not accepted: asking again would end the same way."""


class BadTokens(ApiError):
    """None of the tokens is accepted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One page. `body` is None where the page is still the one that the ETag stands for."""

    url: str
    token_id: str
    etag: str | None
    next_url: str | None
    body: Any


def classify(reply: Reply, pause_s: float | None) -> str | None:
    """Return in a word what a reply is, None for one that is to be read."""
    status = reply.status
    if status in _LIMITED:
        if pause_s is None and reply.headers.get("x-ratelimit-remaining") == "0":
            return "primary"
        is_right = status == 403 and "retry-after" not in reply.headers and not _LIMIT_WORDS.search(reply.message)
        return "rejected" if is_right else "secondary"
    if status in (200, 304):
        return None
    if status in _MOVED:
        return "moved"
    if status == 401:
        return "bad_token"
    return "server_error" if status >= 500 or status == 408 else "rejected"


def follow(url: str, reply: Reply, num_hops: int) -> str:
    """Return where a redirect leads."""
    if num_hops > _MAX_HOPS:
        raise Rejected("redirects", f"{url}: more than {_MAX_HOPS} redirects")
    return _join(url, reply.headers.get("location", ""))


def _join(url: str, target: str) -> str:
    """Return the address that `target` is, seen from `url`."""
    try:
        return str(httpx2.URL(url).join(target))
    except (httpx2.InvalidURL, ValueError):
        raise Rejected("broken_address", f"{url} leads to {target[:200]!r}, which is no address") from None


def read_answer(url: str, token_id: str, reply: Reply) -> Answer | None:
    """Return the page of a reply, None if its body is broken."""
    body = None
    if reply.status != 304:
        try:
            body = json.loads(reply.content)
        except (ValueError, RecursionError):
            return None
        if body is None:  # that would mean: as it was
            return None
    next_url = _join(url, reply.next_url) if reply.next_url else None
    return Answer(url, token_id, reply.headers.get("etag"), next_url, body)
