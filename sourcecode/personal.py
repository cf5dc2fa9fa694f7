"""Personal data in source text: e-mail addresses, public IP addresses, and passwords inside URLs.

A prefilter finds the few places that could be one; each is then judged with what stands around it. Authors' addresses
in headers and licences are personal data like others; what belongs to nobody (reserved names, no-reply) stays.
"""

import ipaddress
from collections.abc import Iterator

import re2

from sourcecode.secrets import MAX_PLACES, Secret
from sourcecode.secrets.placeholders import is_made_up

EMAIL, IP, PASSWORD = "<EMAIL>", "<IP>", "<PASSWORD>"

_PLACES = re2.compile(
    rb"[\w.%+!$&*~^#?-]@[A-Za-z0-9]|\b[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|\b[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:"
)
_LOCAL_PART = re2.compile(rb"[A-Za-z0-9._%+-]{1,64}$")
_DOMAIN = re2.compile(rb"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,6}[A-Za-z]{2,24}")
_URL_PASSWORD = re2.compile(rb"://[^\s/:@\"'`<>]{0,64}:([^\s/@\"'`<>{}]{1,80})$")
_MAX_BEFORE = 170
_AT = ord("@")
_BACKSLASH = ord("\\")
# Letters that an escape takes, by the letter after its backslash.
_ESCAPES = {ord("x"): 3, ord("u"): 5, ord("U"): 9}

# RFC 2606 and 6761, and addresses that are those of a machine.
_RESERVED_DOMAINS = ("example", "example.com", "example.org", "example.net", "example.edu", "test", "invalid", "local")
_MORE_RESERVED = ("localhost", "localdomain", "internal", "noreply.github.com", "noreply.gitlab.com")
_NOBODY = frozenset(("git", "hg", "svn", "noreply", "no-reply", "no_reply", "donotreply", "do-not-reply"))
# What follows the last dot of a file's name, not of a domain.
_SUFFIXES = frozenset(
    (
        *("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "scss", "less", "js", "jsx", "mjs", "cjs", "ts"),
        *(
            "tsx",
            "py",
            "go",
            "dart",
            "json",
            "toml",
            "yaml",
            "yml",
            "html",
            "htm",
            "txt",
            "csv",
            "sql",
            "so",
            "dll",
            "pkl",
            "pt",
            "bin",
        ),
    )
)

_IPV4 = re2.compile(rb"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_IPV6 = re2.compile(rb"[0-9A-Fa-f]{4}(?::[0-9A-Fa-f]{0,4}){2,7}")
# Words before four numbers that are a version, a section or an object identifier.
_NUMBERED = re2.compile(
    rb"(?i)(?:version|\bver|release|\bv|section|\bsec|rfc ?[0-9]*|chapter|\x{a7}|build|rev|oid|[~^=<>!]=|~>|[A-Za-z]/)"
    rb"[\s:=\"'(,_]{0,6}(?:of |no |to )?$"
)
_MIN_OCTET = 20
# What makes an address a part of something longer: a further number, a word, a suffix.
_JOINED_BEFORE = re2.compile(rb"(?:[\w.]|[A-Za-z_]-|[0-9A-Fa-f]:|::)$")
_JOINED_AFTER = re2.compile(rb"\w|[.-]\w")
# Resolvers that everybody names.
_WELL_KNOWN = frozenset(
    (
        *("1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9", "208.67.222.222", "208.67.220.220"),
        *("2606:4700:4700::1111", "2606:4700:4700::1001", "2001:4860:4860::8888", "2001:4860:4860::8844"),
    )
)


def find_personal(data: bytes) -> list[Secret]:
    """Return the places of personal data in the bytes of a text, in its order."""
    found: list[Secret] = []
    for num, hit in enumerate(_PLACES.finditer(data)):
        if num >= MAX_PLACES:
            return [*found, Secret("look-alikes", hit.start(), hit.start(), None)]
        at = hit.start()
        found.extend(_judge_at(data, at + 1) if data[at + 1] == _AT else _judge_address(data, at))
    return found


def _judge_at(data: bytes, at: int) -> Iterator[Secret]:
    """Yield the password of a URL or the e-mail address whose `@` stands at `at`."""
    first = max(0, at - _MAX_BEFORE)
    before = data[first:at]
    if in_url := _URL_PASSWORD.search(before):
        value = in_url.group(1).decode("utf-8", "replace")
        if not is_made_up(value) and value[0] not in "$%*":
            yield Secret("url-password", first + in_url.start(1), at, PASSWORD)
        return
    local, domain = _LOCAL_PART.search(before), _DOMAIN.match(data, at + 1)
    if local is None or domain is None:
        return
    start = _skip_escape(data, first + local.start())
    end = domain.end()
    if start < at and _is_private(data[start:at].decode(), domain.group().decode(), data[end : end + 1]):
        yield Secret("email", start, end, EMAIL)


def _skip_escape(data: bytes, start: int) -> int:
    """Return where an address begins whose first letters may belong to an escape such as that of a newline."""
    num = 0
    while start > num and data[start - num - 1] == _BACKSLASH:
        num += 1
    return start + _ESCAPES.get(data[start], 1) if num % 2 else start


def _is_private(local: str, domain: str, after: bytes) -> bool:
    """Say whether an address may be a person's; one that is called, such as `a@b.to(c)`, is an expression."""
    local, domain = local.lower(), domain.lower()
    labels = domain.split(".")
    if after == b"(" or labels[-1] in _SUFFIXES or not any(letter.isalpha() for letter in labels[-2]):
        return False
    if local in _NOBODY or not any(letter.isalnum() for letter in local):
        return False
    return not any(domain == name or domain.endswith(f".{name}") for name in (*_RESERVED_DOMAINS, *_MORE_RESERVED))


def _judge_address(data: bytes, start: int) -> Iterator[Secret]:
    """Yield the public IP address that begins at `start`."""
    is_v4 = data[start : start + 4].find(b".") > 0
    found = (_IPV4 if is_v4 else _IPV6).match(data, start)
    if found is None:
        return
    text = found.group().decode()
    if text.endswith(":") and not text.endswith("::"):
        text = text[:-1]
    end = start + len(text)
    before, after = data[max(0, start - 24) : start], data[end : end + 2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return
    if not address.is_global or address.is_multicast or text.lower() in _WELL_KNOWN:
        return
    if not (_JOINED_BEFORE.search(before) or _JOINED_AFTER.match(after)) and not (is_v4 and _is_number(text, before)):
        yield Secret("ip-address", start, end, IP)


def _is_number(text: str, before: bytes) -> bool:
    """Say whether four numbers are a version or a section, by what stands before or as all are small, or an example."""
    octets = [int(octet) for octet in text.split(".")]
    return max(octets) < _MIN_OCTET or len(set(octets)) == 1 or _NUMBERED.search(before) is not None
