"""Who may change something: named tokens with scopes, in a file that holds their hashes and never a token."""

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from daemon.files import write_atomically
from monitoring.config import MonitoringSettings
from monitoring.hosts import is_loopback

SCOPES = ("read", "train", "models", "sources", "config")
_PREFIX = "codelupe_"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HEADER = "# name, scopes (" + ", ".join(SCOPES) + "), sha256 of the token. Written by `codelupe token create`.\n"


class TokenError(Exception):
    """The file of tokens cannot be used as it is; the message says where and what to do."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a token is known by; whoever knows the token itself is this caller."""

    name: str
    scopes: frozenset[str]
    digest: str


def parse_tokens(text: str, place: str) -> list[Token]:
    """Read the lines of a file of tokens. Raises TokenError naming the line, and never what may be a token."""
    found: dict[str, Token] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not (words := line.partition("#")[0].split()):
            continue
        if len(words) != 3 or not _NAME.fullmatch(words[0]) or not _DIGEST.fullmatch(words[2]):
            raise TokenError(f"{place}:{number}: write NAME SCOPE,SCOPE SHA256, as `codelupe token create` does")
        name, scopes, digest = words[0], check_scopes(words[1].split(","), f"{place}:{number}: "), words[2]
        if name in found:
            raise TokenError(f"{place}:{number}: there are two tokens {name!r}: remove one of them")
        found[name] = Token(name, scopes, digest)
    return list(found.values())


def check_scopes(scopes: Iterable[str], place: str = "") -> frozenset[str]:
    """Return the scopes. Raises TokenError for one that does not exist."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise TokenError(f"{place}there is no scope {unknown[0]!r}: use {', '.join(SCOPES)}")
    return frozenset(scopes)


def read_tokens(path: Path) -> list[Token]:
    """Read a file of tokens; one that is not there holds none. Raises TokenError where it cannot be read."""
    try:
        return parse_tokens(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"{path}: cannot be read ({error}): CODELUPE_API_TOKENS_FILE names the file") from error


def add_token(path: Path, name: str, scopes: Iterable[str]) -> str:
    """Make a token, write its hash into the file, and return it: it is nowhere else. Raises TokenError."""
    if not _NAME.fullmatch(name):
        raise TokenError(f"{name!r} is no name for a token: use small letters, digits, dots, dashes")
    known = read_tokens(path)
    if any(token.name == name for token in known):
        raise TokenError(f"{path}: there is a token {name!r} already: choose another name, or remove that one first")
    secret = _PREFIX + secrets.token_urlsafe(32)
    _write(path, [*known, Token(name, check_scopes(scopes), _hash(secret))])
    return secret


def remove_token(path: Path, name: str) -> None:
    """Remove a token: from then on it opens nothing. Raises TokenError when there is none of that name."""
    known = read_tokens(path)
    if all(token.name != name for token in known):
        names = ", ".join(token.name for token in known) or "none"
        raise TokenError(f"{path}: there is no token {name!r}; there are: {names}")
    _write(path, [token for token in known if token.name != name])


@dataclass(slots=True)
class TokenFile:
    """The tokens as they are in the file now: one that is added or removed needs no restart."""

    path: Path
    _seen: tuple[int, int] | None = None
    _tokens: list[Token] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, secret: str) -> Token | None:
        """Return the token that this is, in a time that does not depend on how much of it is right.

        Raises:
            TokenError: the file was damaged meanwhile: nobody is let in by what it said before.
        """
        digest, found = _hash(secret), None
        for token in self._read():
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def _read(self) -> list[Token]:
        with self._lock:
            try:
                status = self.path.stat()
            except FileNotFoundError:
                self._seen, self._tokens = None, []
                return []
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                self._tokens = read_tokens(self.path)
                self._seen = seen
            return self._tokens


def tokens_file(home: Path, settings: MonitoringSettings) -> Path:
    """Return where the tokens are."""
    return settings.api_tokens_file or home / "api_tokens"


def check_exposure(home: Path, settings: MonitoringSettings) -> None:
    """Refuse a daemon that others could reach while there is no token. Raises TokenError: a wrong configuration."""
    path = tokens_file(home, settings)
    if not read_tokens(path) and not is_loopback(settings.host):
        raise TokenError(
            f"CODELUPE_HOST={settings.host} shows this machine's port to others, and {path} holds no token: make one "
            "with `codelupe token create NAME --scope read --scope train`, or listen on 127.0.0.1"
        )


def _write(path: Path, tokens: Collection[Token]) -> None:
    lines = [f"{token.name} {','.join(s for s in SCOPES if s in token.scopes)} {token.digest}\n" for token in tokens]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (_HEADER + "".join(lines)).encode())
    except OSError as error:
        raise TokenError(
            f"{path}: cannot be written ({error.strerror}): CODELUPE_API_TOKENS_FILE sets another"
        ) from error


def _hash(secret: str) -> str:
    # 256 random bits need no salt and no slow hash.
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
