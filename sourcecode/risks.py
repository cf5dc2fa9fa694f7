"""Constructs that a reviewer would stop at: injection, disabled checks, hard-coded credentials.

Patterns see the code without its comments and strings, except those for credentials, which look into the strings.
None of them can backtrack over more than a line.
"""

import re
from collections.abc import Sequence
from functools import cache

# (rule, severity, pattern): severity 1 halves the security component of a short file.
_EVERYWHERE = [
    (
        "hard-coded-credential",
        1.0,
        r"(?i)\b\w{0,30}(?:passw(?:or)?d|secret|api_?key|auth_?token|access_?key)\w{0,20}[\"']?\s{0,3}(?::=|[:=])\s{0,3}[\"'](?!test|example|changeme|none|true|false|\*)[^\"'\s<>{}$%]{6,80}[\"']",
    ),
]
_RULES: dict[str, list[tuple[str, float, str]]] = {
    "python": [
        ("eval", 1.0, r"(?<![\w.])(?:eval|exec)\s{0,3}\("),
        ("shell", 1.0, r"\bshell\s{0,3}=\s{0,3}True\b|\bos\.(?:system|popen)\s{0,3}\("),
        ("unpickle", 0.7, r"\b(?:c?[pP]ickle|marshal|shelve|dill)\.(?:loads?|open|Unpickler)\s{0,3}\("),
        ("yaml-load", 0.7, r"\byaml\.(?:unsafe_)?load\s{0,3}\((?![^\n]{0,120}Safe)"),
        ("no-verify", 0.8, r"\bverify\s{0,3}=\s{0,3}False\b|_create_unverified_context|\bCERT_NONE\b"),
        ("weak-hash", 0.3, r"\bhashlib\.(?:md5|sha1)\s{0,3}\("),
        ("mktemp", 0.5, r"\btempfile\.mktemp\s{0,3}\("),
        ("swallowed-error", 0.3, r"\bexcept(?:\s{1,3}(?:Base)?Exception)?\s{0,3}:\s{0,200}pass\b"),
    ],
    "go": [
        ("no-verify", 1.0, r"\bInsecureSkipVerify\s{0,3}:\s{0,9}true\b"),
        (
            "shell",
            0.8,
            r"\bexec\.Command(?:Context)?\s{0,3}\([^\n,]{0,60},?\s{0,3}\"\s*\"\s{0,3},\s{0,3}\"\s*\"\s{0,3},\s{0,3}[A-Za-z]",
        ),
        ("unsafe", 0.5, r"\bunsafe\.Pointer\b"),
        ("weak-hash", 0.3, r"\b(?:md5|sha1)\.(?:New|Sum)\s{0,3}\("),
        ("ignored-error", 0.2, r"(?m)^\s{0,40}_\s{0,3}=\s{0,3}[\w.]+\("),
    ],
    "rust": [
        ("unsafe", 0.4, r"\bunsafe\s{0,3}(?:\{|fn\b|impl\b)"),
        ("transmute", 0.7, r"\bmem::transmute\b|\btransmute\s{0,3}(?:::)?\s{0,3}[<(]"),
        ("no-verify", 1.0, r"\bdanger_accept_invalid_(?:certs|hostnames)\s{0,3}\(\s{0,3}true"),
        ("unwrap", 0.08, r"\.unwrap\(\)"),
        ("static-mut", 0.5, r"\bstatic\s{1,3}mut\b"),
    ],
    "javascript": [
        ("eval", 1.0, r"(?<![\w.])eval\s{0,3}\(|\bnew\s{1,3}Function\s{0,3}\("),
        (
            "inner-html",
            0.5,
            r"\.(?:innerHTML|outerHTML)\s{0,3}\+?=(?!=)|\bdangerouslySetInnerHTML\b|\bdocument\.write(?:ln)?\s{0,3}\(",
        ),
        ("shell", 0.8, r"(?<![\w.])(?:child_process\.|cp\.)?exec(?:Sync)?\s{0,3}\(\s{0,3}(?:`|[A-Za-z])"),
        ("no-verify", 1.0, r"\brejectUnauthorized\s{0,3}:\s{0,3}false\b|NODE_TLS_REJECT_UNAUTHORIZED"),
        ("string-timer", 0.7, r"\bset(?:Timeout|Interval)\s{0,3}\(\s{0,3}[\"']"),
        ("weak-hash", 0.3, r"\bcreateHash\s{0,3}\(\s{0,3}[\"'](?:md5|sha1)"),
    ],
    "dart": [
        ("no-verify", 1.0, r"\bbadCertificateCallback\b[^\n]{0,120}=>\s{0,3}true\b"),
        ("shell", 0.8, r"\brunInShell\s{0,3}:\s{0,3}true\b"),
        ("print", 0.05, r"(?<![\w.])print\s{0,3}\("),
    ],
}
_RULES["typescript"] = [
    *_RULES["javascript"],
    ("any", 0.05, r":\s{0,3}any\b|\bas\s{1,3}any\b"),
    ("ignore", 0.3, r"@ts-ignore"),
]


def find_risks(
    language: str, data: bytes, comments: Sequence[tuple[int, int]], strings: Sequence[tuple[int, int]]
) -> list[tuple[str, float, int]]:
    """Return (rule, severity, line from 1) for each risky place; spans are byte spans."""
    bare = _blank(data, comments)
    code = _blank(bare, strings, keep=1)
    found = [(m.lastgroup or "", m.start()) for m in _compiled(language).finditer(code.decode("latin-1"))]
    found += [(m.lastgroup or "", m.start()) for m in _compiled("").finditer(bare.decode("latin-1"))]
    severities = {_key(rule): (rule, severity) for rule, severity, _ in [*_RULES[language], *_EVERYWHERE]}
    return [(*severities[key], data.count(b"\n", 0, at) + 1) for key, at in sorted(found, key=lambda hit: hit[1])]


@cache
def _compiled(language: str) -> re.Pattern[str]:
    rules = _RULES.get(language, _EVERYWHERE)
    flags = "(?i)" if rules is _EVERYWHERE else ""
    return re.compile(flags + "|".join(f"(?P<{_key(rule)}>{_bare(p)})" for rule, _, p in rules), re.MULTILINE)


def _key(rule: str) -> str:
    return rule.replace("-", "_")


def _bare(pattern: str) -> str:
    return pattern.removeprefix("(?i)").removeprefix("(?m)")


def _blank(data: bytes, spans: Sequence[tuple[int, int]], keep: int = 0) -> bytes:
    """Return the data with the spans' characters made blanks, newlines and `keep` bytes at each end excepted."""
    blanked = bytearray(data)
    for start, end in spans:
        inner = data[start + keep : end - keep]
        blanked[start + keep : start + keep + len(inner)] = _BLANKS.sub(b" ", inner)
    return bytes(blanked)


_BLANKS = re.compile(rb"[^\n]")
