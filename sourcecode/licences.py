"""Under which licence is this? From SPDX headers and from the phrases that only one licence text contains."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

_LICENCE_NAME = re.compile(
    r"(?:un)?licen[cs]e(?:[-_.].*)?|copying(?:[-_.].*)?|(?:mit|apache|gpl|bsd)[-_.]?licen[cs]e(?:[-_.].*)?",
    re.IGNORECASE,
)
_SPDX = re.compile(
    r"SPDX-License-Identifier:[ \t]{0,4}([A-Za-z0-9.+() -]{2,80}?)[ \t]*(?:\*/|-->|\"\"\"|$)", re.MULTILINE
)
_HEADER_CHARS = 4_000
_MAX_TEXT_CHARS = 100_000

# The first whose phrases all occur wins, so that the narrower ones come first. Texts are compared with blanks squeezed.
_PHRASES: list[tuple[str, tuple[str, ...]]] = [
    ("AGPL-3.0-only", ("gnu affero general public license", "version 3")),
    ("LGPL-3.0-only", ("gnu lesser general public license", "version 3, 29 june 2007")),
    ("LGPL-2.1-only", ("gnu lesser general public license", "version 2.1")),
    ("GPL-3.0-only", ("gnu general public license", "version 3, 29 june 2007")),
    ("GPL-2.0-only", ("gnu general public license", "version 2, june 1991")),
    ("MPL-2.0", ("mozilla public license", "2.0")),
    ("EPL-2.0", ("eclipse public license", "2.0")),
    ("PSF-2.0", ("python software foundation license version 2",)),
    ("Apache-2.0", ("apache license", "version 2.0")),
    ("BSL-1.0", ("boost software license - version 1.0",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("Zlib", ("provided 'as-is', without any express or implied", "altered source versions must be plainly marked")),
    (
        "BSD-4-Clause",
        ("redistribution and use in source and binary forms", "all advertising materials mentioning features"),
    ),
    (
        "BSD-3-Clause",
        ("redistribution and use in source and binary forms", "to endorse or promote products derived from"),
    ),
    ("BSD-2-Clause", ("redistribution and use in source and binary forms", "this software is provided")),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software", "provided that the above copyright")),
    ("ISC", ("permission to use, copy, modify, and distribute this software", "provided that the above copyright")),
    (
        "0BSD",
        ("permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is",),
    ),
    ("MIT", ("permission is hereby granted, free of charge, to any person obtaining a copy", "without restriction")),
]


def is_licence_name(path: str) -> bool:
    """Say whether a file at the root of a repository may hold its licence."""
    name = PurePosixPath(path)
    return len(name.parts) == 1 and _LICENCE_NAME.fullmatch(name.name) is not None


def detect_licence(texts: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the SPDX expression of a repository and its evidence, from its licence files by name.

    Two recognised licences in two files are a choice or a mixture that only a person can tell apart: joined by AND, the
    careful reading.
    """
    found: dict[str, str] = {}
    for name in sorted(texts):
        spdx = spdx_header(texts[name]) or _match_phrases(texts[name])
        if spdx is not None:
            found.setdefault(spdx, name)
    if not found:
        return None, f"not recognised: {', '.join(sorted(texts))}"[:200] if texts else "no licence file"
    return " AND ".join(found), ", ".join(f"{name}: {spdx}" for spdx, name in found.items())


def spdx_header(text: str) -> str | None:
    """Return the expression of a file's own SPDX-License-Identifier, or None."""
    found = _SPDX.search(text[:_HEADER_CHARS])
    return found[1].strip() if found else None


def _match_phrases(text: str) -> str | None:
    squeezed = " ".join(text[:_MAX_TEXT_CHARS].lower().split())
    # A GPL text speaks of the Lesser and the Affero licence at its end: its title decides.
    title = squeezed[:600]
    for spdx, phrases in _PHRASES:
        where = title if "GPL" in spdx else squeezed
        if all(phrase in where for phrase in phrases):
            return spdx
    return None
