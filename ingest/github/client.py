"""A small client of GitHub's REST API: serial requests that obey its limits, and answers that are whole or an error.

No exception of it keeps a request, a response or another exception that might hold the token.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from pydantic import SecretStr

from ingest.github.clock import Clock, Stopped
from ingest.github.limits import ANONYMOUS, Limits
from ingest.github.transport import Reply, TokenAuth, Transport, identify_token
from monitoring import record

log = logging.getLogger(__name__)

PER_PAGE: Final = 100
_MAX_TRIES: Final = 5
_MAX_STRIKES: Final = 8
_MAX_HOPS: Final = 5
_FIRST_BACKOFF_S: Final = 1.0
_MAX_BACKOFF_S: Final = 60.0
_WAIT_SLICE_S: Final = 1.0
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


class Client:
    """Asks one API host, one request at a time, with whichever token may ask first."""

    def __init__(
        self,
        api_url: str,
        tokens: Sequence[SecretStr],
        clock: Clock,
        *,
        timeout_s: float = 20.0,
    ) -> None:
        """Ask `api_url`; each request has `timeout_s` seconds."""
        self._api_url, self._clock = api_url.rstrip("/"), clock
        self._auths = {identify_token(token): TokenAuth(token) for token in tokens}
        self._limits = Limits(list(self._auths) or [ANONYMOUS])
        self._transport = Transport(clock, timeout_s=timeout_s)
        self.num_requests = 0
        self.on_wait: Callable[[float, str], None] = lambda _left_s, _reason: None
        """Hears of every slice of every wait: the seconds that are left, and why."""

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def search_url(self, query: str) -> str:
        """Return the first page of a search over repositories; the others are said by the pages themselves."""
        words = {"q": query, "sort": "stars", "order": "desc", "per_page": str(PER_PAGE)}
        return f"{self._api_url}/search/repositories?{httpx2.QueryParams(words)}"

    def remaining(self, resource: str) -> int | None:
        """Return the requests that are left in the open windows, None before the first answer."""
        return self._limits.remaining(resource)

    def fetch(self, url: str, etags: Mapping[str, str] | None = None) -> Answer:
        """Fetch one page; `etags` are those that the tokens were given with it, by the tokens' ids.

        Raises:
            Unreachable: not now. Rejected: never. BadTokens: no token is accepted. Stopped: it is time to stop.
        """
        num_failed = num_hops = 0
        while True:
            self._check_own(url)
            resource = "search" if "/search/" in url else "core"
            token_id = self._await_turn(resource, etags or {})
            self.num_requests += 1
            reply = self._transport.exchange(url, self._auths.get(token_id), (etags or {}).get(token_id))
            if isinstance(reply, Reply):
                self._limits.note(token_id, resource, reply.headers, self._clock.now(), self._clock.utc())
                record.record_limit(resource, self._limits.remaining(resource))
            failure = reply if isinstance(reply, str) else self._judge(reply, token_id, resource)
            record.record_crawl_request(failure or "ok")
            if failure in (None, "not_modified") and isinstance(reply, Reply):
                answer = self._read(url, token_id, reply)
                if answer is not None:
                    return answer
                failure = "broken_body"
            if failure == "moved" and isinstance(reply, Reply):
                num_hops += 1
                url = self._follow(url, reply, num_hops)
            elif failure not in ("primary", "secondary", "bad_token"):
                num_failed += 1
                self._back_off(str(failure), num_failed, url, reply)

    def _judge(self, reply: Reply, token_id: str, resource: str) -> str | None:
        """Return what stands against a reply, None if nothing does; close the windows that it says are closed."""
        status = reply.status
        if status in _LIMITED:
            return self._close(reply, token_id, resource)
        self._limits.forgive()
        if status == 401:
            self._drop(token_id)
            return "bad_token"
        if status in (200, 304):
            return "not_modified" if status == 304 else None
        if status in _MOVED:
            return "moved"
        return "server_error" if status >= 500 or status == 408 else "rejected"

    def _close(self, reply: Reply, token_id: str, resource: str) -> str:
        """Obey a rate limit: Retry-After, else the reset of a used-up window, else at least a minute."""
        now = self._clock.now()
        after_s = reply.pause_s
        if after_s is None and self._limits.is_closed(token_id, resource, now):
            self._limits.strike()
            self._give_up_on_strikes("primary_limit", reply)
            return "primary"
        if after_s is None and reply.status == 403 and not _LIMIT_WORDS.search(reply.message):
            return "rejected"
        wait_s = self._limits.close_all(after_s, now)
        log.warning("GitHub asks for a pause of %.0f s", wait_s, extra={"event": "crawl_paused", "token": token_id})
        self._give_up_on_strikes("secondary_limit", reply)
        return "secondary"

    def _give_up_on_strikes(self, reason: str, reply: Reply) -> None:
        if self._limits.strikes > _MAX_STRIKES:
            raise Unreachable(reason, f"refused {self._limits.strikes} times in a row: {reply.message}")

    def _drop(self, token_id: str) -> None:
        if token_id == ANONYMOUS:
            raise BadTokens("bad_token", "GitHub takes no request without a token: set CODELUPE_GITHUB_TOKENS")
        self._limits.drop(token_id)
        log.error("GitHub does not accept a token", extra={"event": "crawl_bad_token", "token": token_id})
        if not self._limits.token_ids:
            raise BadTokens("bad_token", "GitHub accepts none of CODELUPE_GITHUB_TOKENS: renew or unset them")

    def _await_turn(self, resource: str, etags: Mapping[str, str]) -> str:
        while True:
            token_id, wait_s = self._limits.choose(resource, self._clock.now(), etags)
            if wait_s <= 0:
                return token_id
            self._wait(wait_s, "limit")

    def _back_off(self, failure: str, num_failed: int, url: str, reply: Reply | str) -> None:
        said = reply if isinstance(reply, str) else f"status {reply.status}: {reply.message}"
        if failure == "rejected":
            raise Rejected("rejected", f"{url}: {said}")
        if num_failed >= _MAX_TRIES:
            raise Unreachable(failure, f"{url}: {said} ({num_failed} tries)")
        after_s = None if isinstance(reply, str) else reply.pause_s
        self._wait(max(after_s or 0.0, min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (num_failed - 1))), "back_off")

    def _wait(self, seconds: float, reason: str) -> None:
        """Wait in slices, so that whoever listens can show that we live."""
        record.record_crawl_wait(reason, seconds)
        until = self._clock.now() + seconds
        while (left_s := until - self._clock.now()) > 0:
            self.on_wait(left_s, reason)
            if self._clock.wait(min(left_s, _WAIT_SLICE_S)):
                raise Stopped

    def _follow(self, url: str, reply: Reply, num_hops: int) -> str:
        target = str(httpx2.URL(url).join(reply.headers.get("location", "")))
        if num_hops > _MAX_HOPS:
            raise Rejected("redirects", f"{url}: more than {_MAX_HOPS} redirects")
        return target

    def _check_own(self, url: str) -> None:
        """Refuse an address on another host than the API's: the token is for nobody else."""
        own, asked = urlsplit(self._api_url), urlsplit(url)
        if (own.scheme, own.netloc) != (asked.scheme, asked.netloc):
            raise Rejected("foreign_host", f"{asked.scheme}://{asked.hostname} is not the API's host {own.netloc}")

    def _read(self, url: str, token_id: str, reply: Reply) -> Answer | None:
        """Return the page of a reply, None if its body is broken."""
        body = None
        if reply.status != 304:
            try:
                body = json.loads(reply.content)
            except (ValueError, RecursionError):
                return None
            if body is None:  # that would mean: as it was
                return None
        return Answer(url, token_id, reply.headers.get("etag"), reply.next_url, body)
