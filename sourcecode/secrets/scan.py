"""Finding secrets: a prefilter over all words in one pass of RE2, then the few rules whose word was met, at that place.

Time is linear: the prefilter is one automaton, every rule is bounded and looked at only where its word stands, and a
text with more such places than `MAX_PLACES` is not looked at further, as no code has so many.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import re2

from sourcecode.secrets import ai, clouds, code_hosts, services, vendors
from sourcecode.secrets.generic import judge_value
from sourcecode.secrets.placeholders import is_mixed, is_name, is_shown, measure_entropy
from sourcecode.secrets.rules import TokenRule, VendorRule, quote

TOKEN_RULES: tuple[TokenRule, ...] = (*code_hosts.RULES, *clouds.RULES, *ai.RULES, *services.RULES)
VENDOR_RULES: tuple[VendorRule, ...] = vendors.RULES
# Those that follow a name, and what a flood of look-alikes is called.
OTHER_RULES = ("password", "generic-key", "look-alikes")
MAX_PLACES = 1000
KEY, PASSWORD = "<KEY>", "<PASSWORD>"

_GENERIC = (
    *("passw", "pwd", "secret", "api_key", "access_key", "private_key", "encryption_key", "signing_key"),
    *("auth_key", "account_key", "token", "credential", "bearer"),
)
# A name, what may stand around it, an assignment (a type may stand in it), and the beginning of a value.
_ASSIGNMENT = (
    r"[ \t\w.-]{0,24}[\s'\"\\\])]{0,3}"
    r"(?::\s?&?(?:'static\s)?[\w<>\[\]?]{1,20}\s{0,2}=\s?[`'\"]|:{1,3}=|=>|\?=|\|\||=|>|:|,)"
    r"[`'\"\s=\\(]{0,6}"
)
_NUM_PEEKED = 8
_BODY_HEAD = re.compile(r"(\[[^\]]+\])\{([0-9]+)")
_ESCAPES = frozenset(b"nrtbfv")
_QUOTES = frozenset(b"\"'`")
_BACKSLASH = 0x5C
_WORD_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_WITHOUT_JOINTS = {ord(joint): None for joint in "_- .:"}
_MAX_GENERIC = 260
_MAX_AFTER = 400  # bytes after the word, for rules that look before it


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret's place in the bytes of a text; the value itself stays where it is."""

    rule: str
    start: int
    end: int
    placeholder: str | None
    """What it is replaced by; None: the file is dropped."""


def find_secrets(data: bytes) -> list[Secret]:
    """Return the secrets of a text in UTF-8, in its order."""
    return keep_apart([*_find_tokens(data), *_find_assigned(data)])


def keep_apart(found: Iterable[Secret]) -> list[Secret]:
    """Return them in the order of the text; of those that overlap the one that drops the file, then the first."""
    kept: list[Secret] = []
    for secret in sorted(found, key=lambda secret: (secret.start, secret.placeholder is not None)):
        if not kept or kept[-1].end <= secret.start:
            kept.append(secret)
        elif secret.placeholder is None and kept[-1].placeholder is not None:
            kept[-1] = secret
    return kept


def describe(data: bytes, secret: Secret) -> str:
    """Return rule, line and hash prefix: all that is ever stored or shown of a secret."""
    line = data.count(b"\n", 0, secret.start) + 1
    return f"rule {secret.rule} at line {line}, sha256 {digest(data[secret.start : secret.end])}"


def digest(value: bytes) -> str:
    """Return the first 8 hexadecimal digits of a value's SHA-256, by which its owner can know it again."""
    return hashlib.sha256(value).hexdigest()[:8]


@cache
def _compile(pattern: str) -> Any:
    """Return a rule's pattern as it is applied to bytes; most rules are never needed, so none is compiled before."""
    return re2.compile(pattern.encode())


def _apply(rule: TokenRule, data: bytes, at: int) -> tuple[int, int] | None:
    """Return start and end of the value whose word stands at `at`, or None."""
    pattern = _compile(rule.pattern)
    if not rule.num_before:
        found = pattern.match(data, at)
    else:
        found = pattern.search(data, max(0, at - rule.num_before), at + _MAX_AFTER)
    if found is None or not _is_whole(data, found.start(), found.end()):
        return None
    start, end = found.span()
    return (start, end) if _is_real(rule, data[start:end].decode()) else None


def _is_real(rule: TokenRule, value: str) -> bool:
    if rule.is_mixed:
        word = next((word for word in rule.words if value.startswith(word)), "")
        if not is_mixed(value[len(word) :]):
            return False
    return measure_entropy(value) >= rule.min_entropy and not is_shown(value)


def _index() -> dict[bytes, list[tuple[bytes, TokenRule]]]:
    """Return the rules by the first two bytes of their words."""
    index: dict[bytes, list[tuple[bytes, TokenRule]]] = defaultdict(list)
    for rule in TOKEN_RULES:
        for word in rule.words:
            index[word[:2].encode()].append((word.encode(), rule))
    return index


def _make_prefilter() -> str:
    """Return RE2 that finds each place where a word and the begin of its body stand."""
    first: set[str] = set()
    inner: set[str] = set()
    for rule in TOKEN_RULES:
        head = _BODY_HEAD.match(rule.body)
        peek = f"{head[1]}{{{min(int(head[2]), _NUM_PEEKED)}}}" if head else ""
        for word in rule.words:
            (inner if rule.before or not word[0].isalnum() else first).add(quote(word) + peek)
    return rf"(?:\b|\\[nrtbfv])(?:{'|'.join(sorted(first))})|{'|'.join(sorted(inner))}"


def _make_names() -> str:
    """Return RE2 of all names that a value may be assigned to, in any case."""
    names = {name for rule in VENDOR_RULES for name in rule.names} | set(_GENERIC)
    return "|".join(sorted(name.replace("_", "[_-]?") for name in names))


_OPTIONS = re2.Options()
_OPTIONS.max_mem = 32 << 20  # with the default of 8 MiB the automaton is thrown away and made again too often
_INDEX = _index()
_WORDS = re2.compile(_make_prefilter().encode(), options=_OPTIONS)
_ASSIGNED = re2.compile(
    rf"(?i:{_make_names()}){_ASSIGNMENT}[\w+/=:~%|$!@#^&*.-]{{{_NUM_PEEKED}}}".encode(), options=_OPTIONS
)
_VALUE = re2.compile(rb"[\w+/=:~%|.-]{8,400}")
_VENDORS: dict[str, list[VendorRule]] = defaultdict(list)
for _rule in VENDOR_RULES:
    for _name in _rule.names:
        _VENDORS[_name.replace("_", "")].append(_rule)
_GENERIC_NAMES = re2.compile("|".join(name.replace("_", "") for name in _GENERIC))
_VENDOR_NAMES = re2.compile("|".join(sorted(_VENDORS)))


def _find_tokens(data: bytes) -> Iterator[Secret]:
    for num, hit in enumerate(_WORDS.finditer(data)):
        at = hit.start()
        if num >= MAX_PLACES:
            yield Secret("look-alikes", at, at, None)
            return
        at += 2 if data[at] == _BACKSLASH else 0
        for word, rule in _INDEX[data[at : at + 2]]:
            if data.startswith(word, at) and (span := _apply(rule, data, at)):
                yield Secret(rule.rule, *span, KEY if rule.is_redacted else None)


def _is_whole(data: bytes, start: int, end: int) -> bool:
    """Say whether a value ends where its word ends on both sides; the letter of an escape is no part of a word."""
    if start and _is_word(data[start]) and _is_word(data[start - 1]):
        is_escape = start > 1 and data[start - 2] == _BACKSLASH and data[start - 1] in _ESCAPES
        if not is_escape:
            return False
    return end == len(data) or not (_is_word(data[end - 1]) and _is_word(data[end]))


def _is_word(byte: int) -> bool:
    return byte in _WORD_BYTES


def _find_assigned(data: bytes) -> Iterator[Secret]:
    """Yield the values that are assigned to telling names."""
    for num, hit in enumerate(_ASSIGNED.finditer(data)):
        start = hit.end() - _NUM_PEEKED
        if num >= MAX_PLACES:
            yield Secret("look-alikes", start, start, None)
            return
        name = hit.group()[:-_NUM_PEEKED].decode("ascii", "replace").lower()
        if secret := _judge_assigned(data, name, start):
            yield secret


def _judge_assigned(data: bytes, name: str, start: int) -> Secret | None:
    found = _VALUE.match(data, start)
    value = found.group().decode() if found else ""
    for vendor in _VENDOR_NAMES.findall(name.translate(_WITHOUT_JOINTS)):
        for rule in _VENDORS[vendor]:
            if _compile(rule.value).fullmatch(value.encode()):
                is_real = (is_mixed(value) or value.isdigit()) and not is_name(value)
                is_real = is_real and measure_entropy(value) >= rule.min_entropy
                return Secret(rule.rule, start, start + len(value), KEY) if is_real else None
    return _judge_generic(data, name, start)


def _judge_generic(data: bytes, name: str, start: int) -> Secret | None:
    """Judge a value in no vendor's format: only a whole string of its own, as other words are code or prose."""
    quote_mark = data[start - 1]
    end = data.find(quote_mark, start, start + _MAX_GENERIC) if quote_mark in _QUOTES else -1
    if end < 0 or not _GENERIC_NAMES.search(name.translate(_WITHOUT_JOINTS)):
        return None
    verdict = judge_value(name, data[start:end])
    return Secret(verdict, start, end, PASSWORD if verdict == "password" else KEY) if verdict else None
