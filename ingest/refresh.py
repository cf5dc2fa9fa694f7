"""What a source's newest commit is, before anything is cloned: one small request. Runs in the child process alone.

The request also finds out where the server sends us, and who it is, while nothing but a few bytes is at stake: git
would follow a redirect to any host, and asks its questions afterwards.
"""

import http.client
import ipaddress
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from typing import IO
from urllib.parse import SplitResult, urljoin, urlsplit

from ingest.entries import SourceFailed, no_commit

_QUERY = "/info/refs?service=git-upload-pack"
_CONTENT_TYPE = "application/x-git-upload-pack-advertisement"
# The first reference is HEAD where there is one; it stands within the first lines, with what the server can do.
_MAX_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 12
_TIMEOUT_S = 30.0
# Of the references of a source that was named; the crawler's finds are not worth more than the first lines.
_MAX_TAGS_BYTES = 1 << 22
_TAGS_S = 10.0
_MOST_TAGS = 1000
_END = b"\n0000"
_TAG = re.compile(rb"\n[0-9a-f]{4}[0-9a-f]{40,64} refs/tags/([!-~]{1,100})(?=\n)")
_RELEASE = re.compile(r"(?:[A-Za-z][A-Za-z0-9_@/.-]*[-_/@])?[vV]?([0-9]{1,8}(?:\.[0-9]{1,8}){1,3})")
_PORTS = {"http": 80, "https": 443}
_FIRST_LINES = re.compile(rb"[0-9a-f]{4}# service=git-upload-pack\n0000[0-9a-f]{4}([0-9a-f]{40,64}) ([^\0\n]+)")
_SAFE_URL = re.compile(r"https?://[!-~]{1,2000}")


@dataclass(frozen=True, slots=True)
class Answer:
    """Where a repository is, after redirects within its host, and its newest commit."""

    url: str
    head: str
    tags: tuple[str, ...] | None
    """Its release tags, the newest ones; None: they were not to be had, or not asked for."""


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a server to another path, or from http to https, and nowhere else."""

    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(urljoin(req.full_url, newurl))
        is_upgrade = (old.scheme, new.scheme) == ("http", "https")
        if new.hostname != old.hostname or not (_origin(new) == _origin(old) or is_upgrade) or "@" in new.netloc:
            place = f"{new.scheme}://{new.netloc.rpartition('@')[2]}"
            raise SourceFailed("redirected", f"the server sends us to {place[:200]}", is_permanent=True)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]  # its own headers


def ask_server(url: str, *, must_be_public: bool) -> Answer:
    """Ask a server for the newest commit of a repository: one GET, of which the first bytes are read.

    With `must_be_public` no address of this machine or of a private network is spoken to, and git is pinned to what the
    name meant here. No credentials are known, so none are sent.

    Raises:
        SourceFailed: it is not there, not to be had, elsewhere or no git server; or the network failed.
    """
    parts = urlsplit(url)
    if must_be_public:
        if parts.scheme != "https":
            raise SourceFailed("protocol", "a found repository is read over https alone", is_permanent=True)
        _pin(parts.hostname or "", parts.port or _PORTS[parts.scheme])
    opener = urllib.request.build_opener(_SameHost)
    opener.addheaders = [("User-Agent", "git/codelupe"), ("Accept", "*/*")]
    try:
        with opener.open(url.rstrip("/") + _QUERY, timeout=_TIMEOUT_S) as response:
            return _read_answer(response, with_tags=not must_be_public)
    except urllib.error.HTTPError as error:
        raise _explain_status(error.code) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        words = str(getattr(error, "reason", None) or error or type(error).__name__)
        raise SourceFailed("clone_failed", words[:300], is_permanent=False) from error


def _read_answer(response: http.client.HTTPResponse, *, with_tags: bool) -> Answer:
    if response.headers.get_content_type() != _CONTENT_TYPE:
        raise SourceFailed("not_git", f"it answers with {response.headers.get_content_type()}", is_permanent=True)
    base, query, rest = response.geturl().partition(_QUERY)
    if not query or rest or not _SAFE_URL.fullmatch(base):
        raise SourceFailed("not_git", "it answers from an address of no repository", is_permanent=True)
    data, until = b"", time.monotonic() + _TIMEOUT_S
    while len(data) < _MAX_BYTES and not (found := _FIRST_LINES.match(data)):
        if time.monotonic() > until:
            raise SourceFailed("clone_failed", f"no reference within {_TIMEOUT_S:.0f} s", is_permanent=False)
        if not (chunk := response.read1(_CHUNK_BYTES)):
            break
        data += chunk
    if not (found := _FIRST_LINES.match(data)):
        raise SourceFailed("clone_failed", "it does not answer as git's servers do", is_permanent=False)
    if found[2] != b"HEAD":
        raise no_commit()
    return Answer(base, found[1].decode(), _read_tags(response, data) if with_tags else None)


def _read_tags(response: http.client.HTTPResponse, data: bytes) -> tuple[str, ...] | None:
    """Return the release tags of the rest of an answer; None where it is too long, too slow, or broken off."""
    until = time.monotonic() + _TAGS_S
    parts, num_bytes = [data], len(data)
    try:
        while not b"".join(parts[-2:]).endswith(_END):
            chunk = response.read1(_MAX_BYTES)
            num_bytes += len(chunk)
            if not chunk or num_bytes > _MAX_TAGS_BYTES or time.monotonic() > until:
                return None
            parts.append(chunk)
    except (OSError, http.client.HTTPException):
        return None
    return find_releases(name.decode() for name in _TAG.findall(b"".join(parts)))


def find_releases(names: Iterable[str]) -> tuple[str, ...]:
    """Return those tags that name a release by a whole version number (`v1.2.0`, no `-rc1`): the highest ones."""
    found = ((_RELEASE.fullmatch(name), name) for name in names)
    versions = {name: tuple(map(int, match[1].split("."))) for match, name in found if match is not None}
    return tuple(sorted(versions, key=lambda name: (versions[name], name), reverse=True)[:_MOST_TAGS])


def _pin(host: str, port: int) -> None:
    """Refuse a host with a private address, and let git connect to no other than those that were looked at.

    With a proxy it is the proxy that looks names up, and decides where it connects to.
    """
    if "https" in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SourceFailed("clone_failed", f"could not resolve {host}: {error}"[:300], is_permanent=False) from error
    addresses = [str(entry[4][0]) for entry in found]
    if not all(ipaddress.ip_address(address.partition("%")[0]).is_global for address in addresses):
        raise SourceFailed("private_host", f"{host} is an address of a private network", is_permanent=True)
    shown = [f"[{address}]" if ":" in address else address for address in addresses]
    add_git_config("http.curloptResolve", f"{host}:{port}:{','.join(shown)}")


def add_git_config(key: str, value: str) -> None:
    """Add a setting for every git that this process starts from now on."""
    number = int(os.environ.get("GIT_CONFIG_COUNT", "0"))
    os.environ |= {
        f"GIT_CONFIG_KEY_{number}": key,
        f"GIT_CONFIG_VALUE_{number}": value,
        "GIT_CONFIG_COUNT": str(number + 1),
    }


def _explain_status(status: int) -> SourceFailed:
    if 300 <= status < 400:
        return SourceFailed("redirected", f"HTTP status {status}, to no address that is followed", is_permanent=True)
    if status in (401, 403, 407):
        return SourceFailed("no_access", f"HTTP status {status}", is_permanent=True)
    if status in (404, 410, 451):
        return SourceFailed("not_found", f"HTTP status {status}", is_permanent=True)
    return SourceFailed("clone_failed", f"HTTP status {status}", is_permanent=False)


def _origin(parts: SplitResult) -> tuple[str, int | None]:
    return parts.scheme, parts.port or _PORTS.get(parts.scheme)
