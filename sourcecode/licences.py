"""Under which licence is this? From SPDX headers, from the notices that files carry, and from licences' texts."""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import PurePosixPath
from typing import NamedTuple

from sourcecode.licence_texts import match_texts

_LICENCE_NAME = re.compile(
    r"(?:un)?licen[cs]e(?:[-_.].*)?|copying(?:[-_.].*)?|(?:mit|apache|gpl|bsd|mpl)[-_.]?licen[cs]e(?:[-_.].*)?",
    re.IGNORECASE,
)
# Read where no licence file says anything: a NOTICE names the licences of others too.
_NOTICE_NAME = re.compile(r"(?:copyright|notice)(?:[-_.].*)?", re.IGNORECASE)
_NOT_TEXT = re.compile(r".*\.(?:py|rs|go|[cm]?[jt]sx?|dart|json|ya?ml|toml|png|svg|html?)", re.IGNORECASE)
_SPDX = re.compile(
    r"SPDX-License-Identifier:[ \t]{0,4}([A-Za-z0-9.+() -]{2,80}?)[ \t]*(?:\*/|-->|\"\"\"|$)", re.MULTILINE
)
_HEADER_CHARS = 4_000
_HYPHEN_MARKS, _OTHER_MARKS = re.compile(r"-[*/#;<>\"'|-]+"), re.compile(r"[*/#;<>\"'|][*/#;<>\"'|-]*")
# A word of every notice: what speaks of licences without one of these has none.
_NOTICE_WORDS = re.compile(r"gnu|apache|mozilla|mit|boost")
_MAX_TEXT_CHARS = 200_000
# One plain identifier, as nearly every licence is: read without the library, whose start costs as much as many files.
_IDENTIFIER = re.compile(r"[A-Za-z0-9.-]+")

# What a notice says, in text whose words are separated by single blanks.
_GNU = re.compile(
    r"gnu (affero |lesser |library |)general public licen[cs]e.{0,120}?\bversion ([23](?:\.[01])?)\b"
    r"(.{0,90}?\bany later version|)"
)
_NOTICES = (
    (
        "Apache-2.0",
        re.compile(r"licensed under (?:the terms of )?(?:either of )?(?:the )?apache licen[cs]e,? version 2"),
    ),
    ("MPL-2.0", re.compile(r"(?:terms of|under) the mozilla public licen[cs]e,? (?:v\. ?|version )2\.0")),
    ("MIT", re.compile(r"(?:licensed|released|distributed|available|terms of|or) (?:under )?(?:the )?mit licen[cs]e")),
    ("BSL-1.0", re.compile(r"distributed under the boost software licen[cs]e,? version 1\.0")),
)
_GNU_NAMES = {"affero ": "AGPL", "lesser ": "LGPL", "library ": "LGPL", "": "GPL"}
# Terms that turn a permissive text into something else.
_RESTRICTED = re.compile(r"commons clause|for non-?commercial (?:use|purposes) only|shall be used for good, not evil")
RESTRICTED = "LicenseRef-restricted"


class Licence(NamedTuple):
    """An SPDX expression, None where there is none, and what says so."""

    expression: str | None
    evidence: str


def is_licence_name(path: str) -> bool:
    """Say whether a file, in whatever folder, may hold the licence of what lies below that folder."""
    name = PurePosixPath(path).name
    is_named = _LICENCE_NAME.fullmatch(name) or _NOTICE_NAME.fullmatch(name)
    return is_named is not None and not _NOT_TEXT.fullmatch(name)


def detect_licence(texts: Mapping[str, str]) -> Licence:
    """Return the licence of a folder from its licence files by name.

    Two licences in two files are a choice or a mixture that only a person can tell apart: joined by AND, the careful
    reading, unless one of the files says that they are a choice.
    """
    main = {path: text for path, text in texts.items() if not _NOTICE_NAME.fullmatch(PurePosixPath(path).name)}
    found = _read_all(main) or _read_all(texts)
    if not found:
        return Licence(None, f"not recognised: {', '.join(sorted(texts))}"[:200] if texts else "no licence file")
    evidence = ", ".join(f"{name}: {spdx}" for spdx, name in found.items())
    choice = next((spdx for spdx in _read_all(texts) if _is_choice_of(spdx, found)), None)
    mixture = " AND ".join(f"({spdx})" if " OR " in spdx and len(found) > 1 else spdx for spdx in found)
    return Licence(choice or mixture, evidence[:500])


def file_licence(text: str) -> Licence | None:
    """Return the licence that a source file states itself, in an SPDX header or in a notice at its top."""
    top = text[:_HEADER_CHARS]
    if (header := spdx_header(top)) is not None:
        return Licence(header, f"SPDX header: {header}")
    lower = top.lower()
    if "licen" in lower and _NOTICE_WORDS.search(lower) and (notice := _read_notice(_squeeze(top))) is not None:
        return Licence(notice, f"notice: {notice}")
    return None


def spdx_header(text: str) -> str | None:
    """Return the expression of a file's own SPDX-License-Identifier, or None."""
    found = _SPDX.search(text[:_HEADER_CHARS])
    return found[1].strip() if found else None


def is_allowed(expression: str | None, allowed: Collection[str]) -> bool:
    """Say whether these licences allow what is under an SPDX expression: of OR one must be among them, of AND all.

    `X+` and an exception (`X WITH Y`) are as good as X. What is no expression is not allowed, nor is no licence.
    """
    if expression is None:
        return False
    names = _fold(frozenset(allowed))
    # Before there were expressions, a slash stood between two to choose from.
    folded = expression.lower().replace("/", " or ")
    return folded in names if _IDENTIFIER.fullmatch(folded) else _evaluate(folded, names)


@lru_cache(maxsize=16)
def _fold(names: frozenset[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


@lru_cache(maxsize=4096)
def _evaluate(expression: str, allowed: frozenset[str]) -> bool:
    # Imported where it is needed: the library reads its list of 2,000 licences at the start.
    from boolean import ParseError
    from license_expression import AND, OR, ExpressionError, LicenseWithExceptionSymbol, Licensing

    def holds(node: object) -> bool:
        if isinstance(node, OR):
            return any(holds(part) for part in node.args)
        if isinstance(node, AND):
            return all(holds(part) for part in node.args)
        licence = node.license_symbol if isinstance(node, LicenseWithExceptionSymbol) else node
        key = str(getattr(licence, "key", "")).lower()
        return key in allowed or key.removesuffix("+") in allowed

    try:
        tree = Licensing().parse(expression)
    except (ExpressionError, ParseError):
        return False
    return tree is not None and holds(tree)


def _read_all(texts: Mapping[str, str]) -> dict[str, str]:
    """Map each licence that was recognised to the file that says so."""
    found: dict[str, str] = {}
    for name in sorted(texts):
        for spdx in _read(texts[name][:_MAX_TEXT_CHARS]):
            found.setdefault(spdx, name)
    return found


def _read(text: str) -> list[str]:
    squeezed = _squeeze(text)
    header = spdx_header(text)
    found = [header] if header else match_texts(text)
    if not found and (notice := _read_notice(squeezed)) is not None:
        found = [notice]
    return [*found, RESTRICTED] if found and _RESTRICTED.search(squeezed) else found


def _read_notice(squeezed: str) -> str | None:
    gnu = _GNU.search(squeezed)
    found = [spdx for spdx, pattern in _NOTICES if pattern.search(squeezed)]
    if gnu:
        version = gnu[2] if "." in gnu[2] else f"{gnu[2]}.0"
        found.append(f"{_GNU_NAMES[gnu[1]]}-{version}-{'or-later' if gnu[3] else 'only'}")
    is_choice = "at your option" in squeezed.replace("(at your option) any later", "") or "dual-licensed" in squeezed
    return (" OR " if is_choice else " AND ").join(sorted(found)) if found else None


def _is_choice_of(expression: str, found: Mapping[str, str]) -> bool:
    parts = set(expression.strip("()").split(" OR "))
    return len(parts) > 1 and len(found) > 1 and set(found) - {expression} <= parts


def _squeeze(text: str) -> str:
    # Marks in a row are a hyphen if the first of them is one, and a blank if not.
    return " ".join(_OTHER_MARKS.sub(" ", _HYPHEN_MARKS.sub("-", text.lower())).split())
