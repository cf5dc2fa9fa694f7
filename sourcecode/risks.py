"""Constructs that a reviewer would stop at: injection, disabled checks, hard-coded credentials.

Patterns see the code without its comments and strings, except those for credentials and shells, which look into
strings. Each runs only where one of its words occurs, and every repetition is bounded, so that time stays linear.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sourcecode.blanks import Span, blank


@dataclass(frozen=True, slots=True)
class Risk:
    """A kind of risky place; severity 1 halves the security component of a short file."""

    rule: str
    severity: float
    words: tuple[bytes, ...]
    pattern: re.Pattern[bytes]


def _risk(rule: str, severity: float, words: str, pattern: bytes) -> Risk:
    return Risk(rule, severity, tuple(word.encode() for word in words.split()), re.compile(pattern, re.MULTILINE))


# A password in the source and code that runs what it is sent are the worst of all: they outweigh what an added line or
# function gains a short file elsewhere.
_WORST = 4.0
_CREDENTIALS = [
    _risk(
        "hard-coded-credential",
        _WORST,
        "assw ASSW ecret ECRET pi_key pikey piKey PI_KEY PIKEY uth_token uthToken UTH_TOKEN ccess_key ccessKey"
        " CCESS_KEY",
        # A name, a type (`: &'static str`), a value that is neither an example nor a placeholder.
        rb"(?i:passw(?:or)?d|secret|api_?key|auth_?token|access_?key)\w{0,20}[\"']?"
        rb"(?:\s{0,3}:\s{0,3}[&?<>' \w]{1,24})?\s{0,3}(?::=|[:=])\s{0,3}[\"']"
        rb"(?:(?!test|example|changeme|none|true|false|\*)[^\"'\s<>{}$%]{6,80}|<(?:PASSWORD|KEY)>)[\"']",
    ),
]
_SHELL = rb"\s{0,9}[\"'](?:/bin/|/usr/bin/)?(?:ba|z)?sh[\"']"
# These too look into strings.
_SHELLS: dict[str, list[Risk]] = {
    "go": [
        _risk(
            "shell",
            _WORST,
            "exec.Command",
            rb"exec\.Command(?:Context)?\((?:\s{0,9}[\w.()]{1,40},)?" + _SHELL + rb",\s{0,9}\"-c\"",
        )
    ],
    "rust": [_risk("shell", _WORST, "Command::new", rb"Command::new\(" + _SHELL + rb"\)\s{0,40}\.args?\(.{0,3}\"-c\"")],
    "dart": [
        _risk(
            "shell",
            _WORST,
            "Process.",
            rb"Process\.(?:run|runSync|start)\(" + _SHELL + rb",\s{0,9}(?:const\s{1,3})?\[\s{0,9}[\"']-c[\"']",
        )
    ],
    "javascript": [_risk("shell", _WORST, "spawn", rb"spawn(?:Sync)?\(" + _SHELL + rb",\s{0,9}\[\s{0,9}[\"']-c[\"']")],
}
_SHELLS["typescript"] = _SHELLS["javascript"]
_JAVASCRIPT = [
    _risk("eval", _WORST, "eval", rb"eval(?<![\w.]eval)\s{0,3}\("),
    _risk("eval", _WORST, "Function", rb"new(?<!\wnew)\s{1,3}Function\s{0,3}\("),
    _risk(
        "inner-html",
        0.5,
        "innerHTML outerHTML InnerHTML document.write",
        rb"\.(?:innerHTML|outerHTML)\s{0,3}\+?=(?!=)|\bdangerouslySetInnerHTML\b|\bdocument\.write(?:ln)?\s{0,3}\(",
    ),
    _risk(
        "shell",
        0.8,
        "exec",
        rb"exec(?<!\wexec)(?<!(?<!child_process)(?<!\bcp)\.exec)(?:Sync)?\s{0,3}\(\s{0,3}(?:`|[A-Za-z])",
    ),
    _risk(
        "no-verify",
        1.0,
        "rejectUnauthorized TLS_REJECT",
        rb"\brejectUnauthorized\s{0,3}:\s{0,3}false\b|NODE_TLS_REJECT_UNAUTHORIZED",
    ),
    _risk("string-timer", 0.7, "setTimeout setInterval", rb"\bset(?:Timeout|Interval)\s{0,3}\(\s{0,3}[\"']"),
]
_RULES: dict[str, list[Risk]] = {
    "python": [
        _risk("eval", _WORST, "eval", rb"eval(?<![\w.]eval)\s{0,3}\("),
        _risk("eval", _WORST, "exec", rb"exec(?<![\w.]exec)\s{0,3}\("),
        _risk("shell", _WORST, "shell", rb"shell(?<!\wshell)\s{0,3}=\s{0,3}True\b"),
        _risk("shell", _WORST, "os.", rb"os\.(?<!\wos\.)(?:system|popen)\s{0,3}\("),
        _risk(
            "unpickle",
            0.7,
            "ickle marshal shelve dill",
            rb"\b(?:c?[pP]ickle|marshal|shelve|dill)\.(?:loads?|open|Unpickler)\s{0,3}\(",
        ),
        _risk("yaml-load", 0.7, "yaml", rb"\byaml\.(?:unsafe_)?load\s{0,3}\((?![^\n]{0,120}Safe)"),
        _risk(
            "no-verify",
            0.8,
            "verify unverified CERT_NONE",
            rb"\bverify\s{0,3}=\s{0,3}False\b|_create_unverified_context|\bCERT_NONE\b",
        ),
        _risk("weak-hash", 0.3, "hashlib", rb"\bhashlib\.(?:md5|sha1)\s{0,3}\("),
        _risk("mktemp", 0.5, "mktemp", rb"\btempfile\.mktemp\s{0,3}\("),
        _risk(
            "swallowed-error",
            0.3,
            "except",
            rb"except(?<!\wexcept)(?:\s{1,3}(?:Base)?Exception)?\s{0,3}:\s{0,200}pass\b",
        ),
    ],
    "go": [
        _risk("no-verify", 1.0, "InsecureSkipVerify", rb"\bInsecureSkipVerify\s{0,3}:\s{0,9}true\b"),
        _risk("unsafe", 0.5, "unsafe", rb"\bunsafe\.Pointer\b"),
        _risk("weak-hash", 0.3, "md5 sha1", rb"\b(?:md5|sha1)\.(?:New|Sum)\s{0,3}\("),
        _risk("ignored-error", 0.2, "_", rb"^[ \t]{0,40}_\s{0,3}=\s{0,3}[\w.]{1,80}\("),
    ],
    "rust": [
        _risk("unsafe", 0.4, "unsafe", rb"\bunsafe\s{0,3}(?:\{|fn\b|impl\b)"),
        _risk("transmute", 0.7, "transmute", rb"\btransmute(?:::)?\s{0,3}[<(]"),
        _risk("no-verify", 1.0, "danger_accept", rb"\bdanger_accept_invalid_(?:certs|hostnames)\s{0,3}\(\s{0,3}true"),
        _risk("unwrap", 0.08, ".unwrap()", rb"\.unwrap\(\)"),
        _risk("static-mut", 0.5, "static", rb"\bstatic\s{1,3}mut\b"),
    ],
    "javascript": _JAVASCRIPT,
    "typescript": [
        *_JAVASCRIPT,
        _risk("any", 0.05, "any", rb":\s{0,3}any\b|\bas\s{1,3}any\b"),
    ],
    "dart": [
        _risk("no-verify", 1.0, "badCertificateCallback", rb"\bbadCertificateCallback\b[^\n]{0,120}=>\s{0,3}true\b"),
        _risk("shell", _WORST, "runInShell", rb"\brunInShell\s{0,3}:\s{0,3}true\b"),
        _risk("print", 0.05, "print", rb"(?<![\w.])print\s{0,3}\("),
    ],
}


def find_risks(language: str, data: bytes, code: bytes, comments: Sequence[Span]) -> list[tuple[str, float, int]]:
    """Return (rule, severity, line from 1) for each risky place, in the order of the file.

    `code` is the data with comments and strings made blank.
    """
    places = _search(_RULES.get(language, []), code)
    in_strings = [*_CREDENTIALS, *_SHELLS.get(language, ())]
    if any(word in data for risk in in_strings for word in risk.words):
        places += _search(in_strings, blank(data, comments))
    return [(risk.rule, risk.severity, data.count(b"\n", 0, at) + 1) for at, risk in sorted(places, key=lambda p: p[0])]


def _search(risks: Sequence[Risk], code: bytes) -> list[tuple[int, Risk]]:
    due = (risk for risk in risks if any(word in code for word in risk.words))
    return [(found.start(), risk) for risk in due for found in risk.pattern.finditer(code)]
