"""Licences by header and by phrases."""

import pytest

from sourcecode.licences import detect_licence, is_licence_name, spdx_header

_TEXTS = {
    "MIT": "MIT License\n\nPermission is hereby granted, free of charge, to any person\nobtaining a copy of this software"  # noqa: E501
    " ... to deal in the Software without restriction, including",
    "Apache-2.0": "    Apache License\n    Version 2.0, January 2004\n   http://www.apache.org/licenses/",
    "BSD-3-Clause": "Redistribution and use in source and binary forms, with or without ... Neither the name of X may be used"  # noqa: E501
    " to endorse or promote products derived from this software. THIS SOFTWARE IS PROVIDED",
    "BSD-2-Clause": "Redistribution and use in source and binary forms ... THIS SOFTWARE IS PROVIDED BY",
    "ISC": "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby"  # noqa: E501
    " granted, provided that the above copyright notice and this permission notice appear",
    "MPL-2.0": "Mozilla Public License Version 2.0\n=====",
    "Unlicense": "This is free and unencumbered software released into the public domain.",
    "GPL-3.0-only": "GNU GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007\n"
    + "x " * 900
    + "GNU Lesser General Public License",
    "GPL-2.0-only": "GNU GENERAL PUBLIC LICENSE\n Version 2, June 1991\n"
    + "x " * 900
    + "GNU Lesser General Public License",
    "LGPL-2.1-only": "GNU LESSER GENERAL PUBLIC LICENSE\n Version 2.1, February 1999",
    "LGPL-3.0-only": "GNU LESSER GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007",
    "AGPL-3.0-only": "GNU AFFERO GENERAL PUBLIC LICENSE\n Version 3, 19 November 2007",
}


@pytest.mark.parametrize("spdx", _TEXTS)
def test_it_recognises_a_licence_by_its_own_phrases(spdx: str) -> None:
    assert detect_licence({"LICENSE": _TEXTS[spdx]}) == (spdx, f"LICENSE: {spdx}")


def test_it_joins_two_licences_by_and_and_says_where_each_was_found() -> None:
    found = detect_licence({"LICENSE-MIT": _TEXTS["MIT"], "LICENSE-APACHE": _TEXTS["Apache-2.0"]})
    assert found == ("Apache-2.0 AND MIT", "LICENSE-APACHE: Apache-2.0, LICENSE-MIT: MIT")


def test_it_guesses_nothing() -> None:
    assert detect_licence({}) == (None, "no licence file")
    assert detect_licence({"LICENSE": "All rights reserved."}) == (None, "not recognised: LICENSE")


@pytest.mark.parametrize(
    ("text", "spdx"),
    [
        ("// SPDX-License-Identifier: MIT\n", "MIT"),
        ("# SPDX-License-Identifier: (MIT OR Apache-2.0)\n", "(MIT OR Apache-2.0)"),
        ("/* SPDX-License-Identifier: GPL-2.0+ */\n", "GPL-2.0+"),
        ("x" * 5000 + "\n# SPDX-License-Identifier: MIT\n", None),
        ("# SPDX-License-Identifier:\n", None),
    ],
)
def test_it_reads_the_header_of_a_file(text: str, spdx: str | None) -> None:
    assert spdx_header(text) == spdx


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("LICENSE", True),
        ("LICENCE.md", True),
        ("COPYING", True),
        ("LICENSE-MIT", True),
        ("docs/LICENSE", False),
        ("licensed.py", False),
    ],
)
def test_it_looks_at_licence_files_of_the_root_alone(path: str, expected: bool) -> None:
    assert is_licence_name(path) is expected
