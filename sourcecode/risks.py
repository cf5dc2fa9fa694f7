"""Constructs that a reviewer would stop at: injection, disabled checks, hard-coded credentials.

Patterns see the code without its comments and strings, except those for credentials and shells, which look into
strings. One pass of RE2 tells whether any of a language's rare ones can be there at all, and every repetition is
bounded, so that time stays linear.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import re2

from sourcecode.blanks import Span, blank


@dataclass(frozen=True, slots=True)
class Risk:
    """A kind of risky place; severity 1 halves the security component of a short file."""

    rule: str
    severity: float
    pattern: bytes


# A password in the source and code that runs what it is sent are the worst of all: they outweigh what an added line or
# function gains a short file elsewhere.
_WORST = 4.0
_NAMES = rb"(?i:passw(?:or)?d|secret|api_?key|auth_?token|access_?key)"
_CREDENTIAL = Risk(
    "hard-coded-credential",
    _WORST,
    # A name, a type (`: &'static str`), a value that is neither an example nor a placeholder.
    _NAMES + rb"\w{0,20}[\"']?(?:\s{0,3}:\s{0,3}[&?<>' \w]{1,24})?\s{0,3}(?::=|[:=])\s{0,3}[\"']"
    rb"(?:(?!test|example|changeme|none|true|false|\*)[^\"'\s<>{}$%]{6,80}|<(?:PASSWORD|KEY)>)[\"']",
)
_SHELL = rb"\s{0,9}[\"'](?:/bin/|/usr/bin/)?(?:ba|z)?sh[\"']"
# These too look into strings; the word is one that stands in each of their matches.
_SHELLS: dict[str, tuple[bytes, Risk]] = {
    "go": (
        b"exec.Command",
        Risk(
            "shell",
            _WORST,
            rb"exec\.Command(?:Context)?\((?:\s{0,9}[\w.()]{1,40},)?" + _SHELL + rb",\s{0,9}\"-c\"",
        ),
    ),
    "rust": (
        b"Command::new",
        Risk("shell", _WORST, rb"Command::new\(" + _SHELL + rb"\)\s{0,40}\.args?\(.{0,3}\"-c\""),
    ),
    "dart": (
        b"Process.",
        Risk(
            "shell",
            _WORST,
            rb"Process\.(?:run|runSync|start)\(" + _SHELL + rb",\s{0,9}(?:const\s{1,3})?\[\s{0,9}[\"']-c[\"']",
        ),
    ),
    "javascript": (
        b"spawn",
        Risk("shell", _WORST, rb"spawn(?:Sync)?\(" + _SHELL + rb",\s{0,9}\[\s{0,9}[\"']-c[\"']"),
    ),
}
_SHELLS["typescript"] = _SHELLS["javascript"]
_JAVASCRIPT = [
    Risk("eval", _WORST, rb"eval(?<![\w.]eval)\s{0,3}\("),
    Risk("eval", _WORST, rb"new(?<!\wnew)\s{1,3}Function\s{0,3}\("),
    Risk(
        "inner-html",
        0.5,
        rb"\.(?:innerHTML|outerHTML)\s{0,3}\+?=(?!=)|\bdangerouslySetInnerHTML\b|\bdocument\.write(?:ln)?\s{0,3}\(",
    ),
    Risk(
        "shell",
        0.8,
        rb"exec(?<!\wexec)(?<!(?<!child_process)(?<!\bcp)\.exec)(?:Sync)?\s{0,3}\(\s{0,3}(?:`|[A-Za-z])",
    ),
    Risk(
        "no-verify",
        1.0,
        rb"\brejectUnauthorized\s{0,3}:\s{0,3}false\b|NODE_TLS_REJECT_UNAUTHORIZED",
    ),
    Risk("string-timer", 0.7, rb"\bset(?:Timeout|Interval)\s{0,3}\(\s{0,3}[\"']"),
]
_RULES: dict[str, list[Risk]] = {
    "python": [
        Risk("eval", _WORST, rb"eval(?<![\w.]eval)\s{0,3}\("),
        Risk("eval", _WORST, rb"exec(?<![\w.]exec)\s{0,3}\("),
        Risk("shell", _WORST, rb"shell(?<!\wshell)\s{0,3}=\s{0,3}True\b"),
        Risk("shell", _WORST, rb"os\.(?<!\wos\.)(?:system|popen)\s{0,3}\("),
        Risk(
            "unpickle",
            0.7,
            rb"\b(?:c?[pP]ickle|marshal|shelve|dill)\.(?:loads?|open|Unpickler)\s{0,3}\(",
        ),
        Risk("yaml-load", 0.7, rb"\byaml\.(?:unsafe_)?load\s{0,3}\((?![^\n]{0,120}Safe)"),
        Risk(
            "no-verify",
            0.8,
            rb"\bverify\s{0,3}=\s{0,3}False\b|_create_unverified_context|\bCERT_NONE\b",
        ),
        Risk("weak-hash", 0.3, rb"\bhashlib\.(?:md5|sha1)\s{0,3}\("),
        Risk("mktemp", 0.5, rb"\btempfile\.mktemp\s{0,3}\("),
        Risk(
            "swallowed-error",
            0.3,
            rb"except(?<!\wexcept)(?:\s{1,3}(?:Base)?Exception)?\s{0,3}:\s{0,200}pass\b",
        ),
    ],
    "go": [
        Risk("no-verify", 1.0, rb"\bInsecureSkipVerify\s{0,3}:\s{0,9}true\b"),
        Risk("unsafe", 0.5, rb"\bunsafe\.Pointer\b"),
        Risk("weak-hash", 0.3, rb"\b(?:md5|sha1)\.(?:New|Sum)\s{0,3}\("),
        Risk("ignored-error", 0.2, rb"^[ \t]{0,40}_\s{0,3}=\s{0,3}[\w.]{1,80}\("),
    ],
    "rust": [
        Risk("unsafe", 0.4, rb"\bunsafe\s{0,3}(?:\{|fn\b|impl\b)"),
        Risk("transmute", 0.7, rb"\btransmute(?:::)?\s{0,3}[<(]"),
        Risk("no-verify", 1.0, rb"\bdanger_accept_invalid_(?:certs|hostnames)\s{0,3}\(\s{0,3}true"),
        Risk("unwrap", 0.08, rb"\.unwrap\(\)"),
        Risk("static-mut", 0.5, rb"\bstatic\s{1,3}mut\b"),
    ],
    "javascript": _JAVASCRIPT,
    "typescript": [
        *_JAVASCRIPT,
        Risk("any", 0.05, rb":\s{0,3}any\b|\bas\s{1,3}any\b"),
    ],
    "dart": [
        Risk("no-verify", 1.0, rb"\bbadCertificateCallback\b[^\n]{0,120}=>\s{0,3}true\b"),
        Risk("shell", _WORST, rb"\brunInShell\s{0,3}:\s{0,3}true\b"),
        Risk("print", 0.05, rb"(?<![\w.])print\s{0,3}\("),
    ],
}


# Ordinary code has these every now and then: each is looked for. One pass tells that none of the others is there.
_COMMON = frozenset({"ignored-error", "unwrap", "unsafe", "any", "print", "swallowed-error"})
_LOOK_AROUND = re.compile(rb"\(\?<?[!=]")
_OPTIONS = re2.Options()
_OPTIONS.encoding = re2.Options.Encoding.LATIN1  # patterns see bytes
_OPTIONS.max_mem = 32 << 20


@dataclass(frozen=True, slots=True)
class _Search:
    """The patterns of one language's risks; `gate` matches wherever one of the rare ones does."""

    common: list[tuple[Risk, Any]]
    rare: list[tuple[Risk, Any]]
    gate: Any


def find_risks(language: str, data: bytes, code: bytes, comments: Sequence[Span]) -> list[tuple[str, float, int]]:
    """Return (rule, severity, line from 1) for each risky place, in the order of the file.

    `code` is the data with comments and strings made blank.
    """
    places = [*_search(language, code), *_search_strings(language, data, comments)]
    return [(risk.rule, risk.severity, data.count(b"\n", 0, at) + 1) for at, risk in sorted(places, key=lambda p: p[0])]


def _search(language: str, code: bytes) -> Iterator[tuple[int, Risk]]:
    search = _make_search(language)
    for risk, pattern in [*search.common, *(search.rare if search.gate.search(code) else ())]:
        for found in pattern.finditer(code):
            yield found.start(), risk


def _search_strings(language: str, data: bytes, comments: Sequence[Span]) -> Iterator[tuple[int, Risk]]:
    """Yield passwords by the names before them, and shells that are given a command."""
    names = _compile(_NAMES)
    word, shell = _SHELLS.get(language, (b"", None))
    has_shell = shell is not None and word in data
    if not has_shell and not names.search(data):
        return
    bare, end = blank(data, comments), 0
    for name in names.finditer(bare):
        if name.start() >= end and (found := _compile(_CREDENTIAL.pattern).match(bare, name.start())):
            end = found.end()
            yield found.start(), _CREDENTIAL
    if shell is not None and has_shell:
        for found in _compile(shell.pattern).finditer(bare):
            yield found.start(), shell


@cache
def _make_search(language: str) -> _Search:
    risks = _RULES.get(language, [])
    patterns = [(risk, _compile(risk.pattern)) for risk in risks]
    rare = [(risk, pattern) for risk, pattern in patterns if risk.rule not in _COMMON]
    # Without any the gate is shut: this matches nothing.
    gate = b"|".join(_drop_look_around(risk.pattern) for risk, _ in rare) or rb"[^\x00-\xff]"
    return _Search([pair for pair in patterns if pair not in rare], rare, _compile(gate))


@cache
def _compile(pattern: bytes) -> Any:
    """Return a pattern in RE2 unless it looks around: those that do begin with fixed letters, which re finds fast."""
    if _LOOK_AROUND.search(pattern):
        return re.compile(pattern, re.MULTILINE)
    return re2.compile(b"(?m)" + pattern, options=_OPTIONS)


def _drop_look_around(pattern: bytes) -> bytes:
    """Return a pattern that matches at least where this one does."""
    while found := _LOOK_AROUND.search(pattern):
        end, depth = found.end(), 1
        while depth:
            depth += {b"(": 1, b")": -1}.get(pattern[end : end + 1], 0)
            end += 1
        pattern = pattern[: found.start()] + pattern[end:]
    return pattern
