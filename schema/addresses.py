"""Addresses of remote repositories in their canonical form, which is their key: adding one twice is adding it once."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[\w.-]+|[0-9a-fA-F:.]+")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_.~+-]{1,100}")


class BadAddress(ValueError):
    """Not the address of a repository that is read here; the message says what would be one."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a git repository is cloned from."""

    url: str
    host: str
    owner: str | None
    name: str


def parse_address(text: str) -> Address:
    """Return the canonical form of an http(s) address of a git repository.

    Raises:
        BadAddress: it is none; the message never holds what was given, which may be a password. ValueError: of a URL's
        parts that make no sense.
    """
    url = urlsplit(text)
    if url.scheme not in _PORTS or not _HOST.fullmatch(url.hostname or ""):
        raise BadAddress("not a git URL that is read here; use https://host/owner/name")
    if url.username or url.password:
        raise BadAddress("credentials do not belong into a source; remove them")
    parts = [part for part in unquote(url.path).split("/") if part]
    if not parts or url.query or url.fragment or not all(map(_is_safe, parts)):
        raise BadAddress("not the address of a repository; use https://host/owner/name")
    parts[-1] = parts[-1].removesuffix(".git") or parts[-1]
    if url.hostname == "github.com":
        # GitHub does not tell letter cases apart, and pages below a repository name the repository.
        parts = [part.lower() for part in parts[:2]]
    host = _host(url)
    return Address(
        url=f"{url.scheme}://{host}/{'/'.join(parts)}",
        host=host,
        owner=parts[-2] if len(parts) > 1 else None,
        name=parts[-1],
    )


def _host(url: SplitResult) -> str:
    host = (url.hostname or "").lower()
    is_usual = url.port is None or url.port == _PORTS[url.scheme]
    return host if is_usual else f"{host}:{url.port}"


def _is_safe(part: str) -> bool:
    return _SAFE_NAME.fullmatch(part) is not None and not part.startswith("-") and part not in (".", "..")
