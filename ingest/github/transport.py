"""Requests as they travel: the token in a header alone, each in a thread of its own, whole replies or a word.

No exception leaves this module: one could hold the request, and with it the token.
"""

import hashlib
import json
import threading
import zlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Final

import httpx2
from pydantic import SecretStr

from ingest.github.clock import Clock, Stopped

# A page has less than a megabyte; of many small lists in it each takes twenty times its text.
_MAX_BODY_BYTES: Final = 1 << 23
_JOIN_S: Final = 0.2
_HEADERS: Final = {
    "Accept-Encoding": "gzip",
    "Accept": "application/vnd.github+json",
    "X-GitHub-Api-Version": "2022-11-28",
    "User-Agent": "codelupe",
}
_GZIP_BITS: Final = 16 + zlib.MAX_WBITS


class _BodyBroken(Exception):
    """A body that is not read any further."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    next_url: str | None
    content: bytes

    @property
    def message(self) -> str:
        """Return GitHub's own words on a refusal; nothing in them moves a terminal's cursor."""
        try:
            said = str(json.loads(self.content)["message"])[:200]
        except (ValueError, KeyError, TypeError, RecursionError):
            return "no message"
        return "".join(char if char.isprintable() else "?" for char in said)


class TokenAuth(httpx2.Auth):
    """Writes the token into the header of a request that is on its way, and shows it to nobody else."""

    def __init__(self, token: SecretStr) -> None:
        self._token = token

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Send the request once, with the token."""
        request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        yield request

    def __repr__(self) -> str:
        return "TokenAuth(***)"


def identify_token(token: SecretStr) -> str:
    """Return what stands for a token in the database and in logs; the token cannot be told from it."""
    return hashlib.sha256(token.get_secret_value().encode()).hexdigest()[:12]


class Transport:
    """Sends one request at a time, and waits for it no longer than it may."""

    def __init__(self, clock: Clock, *, timeout_s: float) -> None:
        self._clock, self._timeout_s = clock, timeout_s
        self._http = self._open()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def exchange(self, url: str, auth: TokenAuth | None, etag: str | None) -> Reply | str:
        """Send one request in a thread of its own, so that neither a stop nor a dribbling answer waits for it.

        Returns the reply, or in a word why there is none.
        """
        replies: list[Reply | str] = []
        headers = {"If-None-Match": etag} if etag else {}
        arguments = (self._http, url, headers, auth, replies)
        thread = threading.Thread(target=_send, args=arguments, name="github", daemon=True)
        until = self._clock.now() + self._timeout_s
        thread.start()
        while thread.is_alive() and self._clock.now() < until:
            thread.join(_JOIN_S)
            if self._clock.is_stopped():
                raise Stopped
        if not replies:
            self._http = self._open()  # whatever the thread still waits for is its own affair
        return replies[0] if replies else "timeout"

    def _open(self) -> httpx2.Client:
        return httpx2.Client(timeout=self._timeout_s, headers=_HEADERS, follow_redirects=False)


def _send(
    http: httpx2.Client, url: str, headers: dict[str, str], auth: httpx2.Auth | None, replies: list[Reply | str]
) -> None:
    try:
        with http.stream("GET", url, headers=headers, auth=auth) as response:
            content = _read_body(response)
            next_url = response.links.get("next", {}).get("url")
            replies.append(Reply(response.status_code, dict(response.headers), next_url, content))
    except httpx2.TimeoutException:
        replies.append("timeout")
    except (httpx2.RemoteProtocolError, zlib.error, _BodyBroken):
        replies.append("broken_body")
    except Exception:  # noqa: BLE001 - the edge of a thread: whatever a reply does to its reader, it is none
        replies.append("connection")


def _read_body(response: httpx2.Response) -> bytes:
    """Read a body, unpacked by at most one layer and no further than it may be long.

    Raises:
        _BodyBroken: it is longer, or packed otherwise. zlib.error: it is not what it says.
    """
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("gzip", "identity", ""):
        raise _BodyBroken
    unpack = zlib.decompressobj(_GZIP_BITS) if packing == "gzip" else None
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk if unpack is None else unpack.decompress(chunk, _MAX_BODY_BYTES + 1)
        if len(content) > _MAX_BODY_BYTES:
            raise _BodyBroken
    return bytes(content)
