"""A small client of GitHub's REST API: serial requests that obey its limits, and answers that are whole or an error."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import httpx2
from pydantic import SecretStr

from ingest.github.answers import Answer, BadTokens, Rejected, Unreachable, classify, follow, read_answer
from ingest.github.clock import Clock, Stopped
from ingest.github.limits import ANONYMOUS, Book, Limits, tells_reset
from ingest.github.pauses import read_retry_after
from ingest.github.replies import PER_PAGE
from ingest.github.transport import Reply, TokenAuth, Transport, identify_token
from monitoring import record

log = logging.getLogger(__name__)

_MAX_TRIES: Final = 5
_MAX_STRIKES: Final = 8
_FIRST_BACKOFF_S: Final = 1.0
_MAX_BACKOFF_S: Final = 60.0
_WAIT_SLICE_S: Final = 1.0
_SEARCH_PATH: Final = "/search/repositories"


class Client:
    """Asks one API host, one request at a time, with whichever token may ask first."""

    def __init__(
        self,
        api_url: str,
        tokens: Sequence[SecretStr],
        clock: Clock,
        book: Book,
        *,
        timeout_s: float = 20.0,
    ) -> None:
        """Ask `api_url`; each request has `timeout_s` seconds, and `book` keeps what is known of the limits."""
        self._api_url, self._clock = api_url.rstrip("/"), clock
        self._auths = {identify_token(token): TokenAuth(token) for token in tokens}
        self._limits = Limits(list(self._auths) or [ANONYMOUS], book, clock, timeout_s=timeout_s)
        self._transport = Transport(clock, timeout_s=timeout_s)
        self.num_requests = 0
        self.waited_s: dict[str, float] = defaultdict(float)  # by what for: limit, back_off
        self.on_wait: Callable[[float, str], None] = lambda _left_s, _reason: None
        """Hears of every slice of every wait: the seconds that are left, and why."""

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def search_url(self, query: str) -> str:
        """Return the first page of a search over repositories; the others are said by the pages themselves."""
        words = {"q": query, "sort": "stars", "order": "desc", "per_page": str(PER_PAGE)}
        return f"{self._api_url}{_SEARCH_PATH}?{httpx2.QueryParams(words)}"

    def user_url(self, login: str) -> str:
        """Return the address of what the API says of an account."""
        return f"{self._api_url}/users/{login}"

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
            resource = "search" if urlsplit(url).path.endswith(_SEARCH_PATH) else "core"
            token_id = self._await_turn(resource, etags or {})
            reply = self._ask(url, resource, token_id, (etags or {}).get(token_id))
            failure = self._judge(reply, token_id, resource)
            if failure is None and isinstance(reply, Reply):
                answer = read_answer(url, token_id, reply)
                if answer is not None:
                    record.record_crawl_request("not_modified" if answer.body is None else "ok")
                    return answer
                failure = "broken_body"
            record.record_crawl_request(str(failure))
            if failure == "moved" and isinstance(reply, Reply):
                num_hops += 1
                url = follow(url, reply, num_hops)
            elif failure not in ("primary", "secondary", "bad_token"):
                num_failed += 1
                self._back_off(str(failure), num_failed, url, reply)

    def _ask(self, url: str, resource: str, token_id: str, etag: str | None) -> Reply | str:
        self.num_requests += 1
        try:
            reply = self._transport.exchange(url, self._auths.get(token_id), etag)
        except Stopped:
            self._limits.end_turn(token_id, resource)
            raise
        if isinstance(reply, str):
            self._limits.end_turn(token_id, resource)
        return reply

    def _judge(self, reply: Reply | str, token_id: str, resource: str) -> str | None:
        """Return what stands against a reply, None if nothing does; close the windows that it says are closed."""
        if isinstance(reply, str):
            return reply
        pause_s, fault = read_retry_after(reply.headers, self._clock.utc())
        failure = classify(reply, pause_s)
        if failure in ("primary", "secondary"):
            self._limits.strike()
        else:
            self._limits.forgive()
        # A used-up window that does not say when it opens is closed as by a limit that names no time.
        is_endless = failure == "primary" and not tells_reset(reply.headers)
        wait_s = (pause_s or self._limits.next_pause_s()) if failure == "secondary" or is_endless else 0.0
        self._limits.end_turn(token_id, resource, reply.headers, pause_s=wait_s)
        record.record_limit(resource, self._limits.remaining(resource))
        if fault:
            log.warning("%s", fault, extra={"event": "crawl_bad_pause"})
        if wait_s:
            log.warning("GitHub asks for a pause of %.0f s", wait_s, extra={"event": "crawl_paused", "token": token_id})
        if failure in ("primary", "secondary"):
            self._give_up_on_strikes(f"{failure}_limit", reply)
        if failure == "bad_token":
            self._drop(token_id)
        return failure

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
            token_id, wait_s = self._limits.take_turn(resource, etags)
            if wait_s <= 0:
                return token_id
            self._wait(wait_s, "limit")

    def _back_off(self, failure: str, num_failed: int, url: str, reply: Reply | str) -> None:
        said = reply if isinstance(reply, str) else f"status {reply.status}: {reply.message}"
        if failure == "rejected":
            raise Rejected("rejected", f"{url}: {said}")
        if num_failed >= _MAX_TRIES:
            raise Unreachable(failure, f"{url}: {said} ({num_failed} tries)")
        after_s = None if isinstance(reply, str) else read_retry_after(reply.headers, self._clock.utc())[0]
        self._wait(max(after_s or 0.0, min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (num_failed - 1))), "back_off")

    def _wait(self, seconds: float, reason: str) -> None:
        """Wait in slices, so that whoever listens can show that we live."""
        record.record_crawl_wait(reason, seconds)
        until = self._clock.now() + seconds
        while (left_s := until - self._clock.now()) > 0:
            self.on_wait(left_s, reason)
            began = self._clock.now()
            is_stopped = self._clock.wait(min(left_s, _WAIT_SLICE_S))
            self.waited_s[reason] += self._clock.now() - began
            if is_stopped:
                raise Stopped

    def _check_own(self, url: str) -> None:
        """Refuse an address on another host than the API's: the token is for nobody else."""
        own, asked = urlsplit(self._api_url), urlsplit(url)
        if (own.scheme, own.netloc) != (asked.scheme, asked.netloc):
            raise Rejected("foreign_host", f"{asked.scheme}://{asked.hostname} is not the API's host {own.netloc}")
