"""Licences by their texts, by headers and notices; and whether an expression is allowed."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from sourcecode.licence_texts import match_texts
from sourcecode.licences import RESTRICTED, Licence, detect_licence, file_licence, is_allowed, is_licence_name

ROOT = Path(__file__).parents[2]
APACHE = (ROOT / "LICENSE").read_text()
# Real texts that lie in the test environment: package, file, licence.
_INSTALLED = [
    ("pytest", "LICENSE", "MIT"),
    ("sqlalchemy", "LICENSE", "MIT"),
    ("flask", "LICENSE.txt", "BSD-3-Clause"),
    ("httpx2", "LICENSE.md", "BSD-3-Clause"),
    ("pygments", "LICENSE", "BSD-2-Clause"),
    ("packaging", "LICENSE.BSD", "BSD-2-Clause"),
    ("packaging", "LICENSE.APACHE", "Apache-2.0"),
    ("psycopg", "LICENSE.txt", "LGPL-3.0-only"),
    ("pathspec", "LICENSE", "MPL-2.0"),
    ("tqdm", "LICENCE", "MIT"),
    ("typing_extensions", "LICENSE", "PSF-2.0"),
]
_GNU = """This {what} is free software: you can redistribute it and/or modify it under the terms of the GNU {which}
General Public License as published by the Free Software Foundation, {version}."""
_LATER = "either version {} of the License, or (at your option) any later version"
_RUST = """Licensed under the Apache License, Version 2.0 <LICENSE-APACHE or http://www.apache.org/licenses/LICENSE-2.0>
or the MIT license <LICENSE-MIT or http://opensource.org/licenses/MIT>, at your option."""


def read_installed(package: str, name: str) -> str:
    files = importlib.metadata.files(package) or []
    return next(file for file in files if file.name == name and "dist-info" in str(file)).read_text()


def comment(text: str, mark: str) -> str:
    return "".join(f"{mark}{line}\n" for line in text.splitlines())


MIT = read_installed("pytest", "LICENSE")


@pytest.mark.parametrize(("package", "name", "spdx"), _INSTALLED)
def test_it_recognises_the_texts_of_real_packages(package: str, name: str, spdx: str) -> None:
    found = detect_licence({name: read_installed(package, name)})
    assert spdx in (found.expression or "").split(" AND ")
    assert f"{name}: " in found.evidence


def test_of_two_licences_with_the_same_words_it_names_the_right_one() -> None:
    bsd = read_installed("flask", "LICENSE.txt")
    without_the_third_clause = re.sub(r"3\..*?permission\.", "", bsd, flags=re.DOTALL)
    assert match_texts(bsd) == ["BSD-3-Clause"]
    assert match_texts(without_the_third_clause) == ["BSD-2-Clause"]


def test_other_lines_other_names_and_comment_marks_make_no_difference() -> None:
    marked = "\n".join(f" *  {line.upper()}" for line in " ".join(MIT.split()).replace(". ", ".\n").splitlines())
    assert match_texts(f"/*\n * Copyright (c) 1999 Somebody Else\n{marked}\n */") == ["MIT"]


def test_half_a_licence_is_none() -> None:
    assert match_texts(MIT[: len(MIT) // 2]) == []
    assert match_texts(APACHE[: len(APACHE) // 2]) == []


def test_two_files_are_a_mixture_unless_one_says_that_they_are_a_choice() -> None:
    both = {"LICENSE-MIT": MIT, "LICENSE-APACHE": APACHE}
    assert detect_licence(both) == ("Apache-2.0 AND MIT", "LICENSE-APACHE: Apache-2.0, LICENSE-MIT: MIT")
    assert detect_licence({**both, "COPYRIGHT": _RUST}).expression == "Apache-2.0 OR MIT"


def test_a_permissive_text_with_a_restriction_is_not_permissive() -> None:
    found = detect_licence({"LICENSE": MIT + '\n"Commons Clause" License Condition v1.0\n'})
    assert found.expression == f"MIT AND {RESTRICTED}"
    assert not is_allowed(found.expression, {"MIT"})


def test_what_a_notice_says_of_others_does_not_count_beside_a_licence_file() -> None:
    notice = _GNU.format(what="library", which="Lesser", version=_LATER.format("2.1"))
    assert detect_licence({"LICENSE": APACHE, "NOTICE": notice}).expression == "Apache-2.0"
    assert detect_licence({"NOTICE": notice}).expression == "LGPL-2.1-or-later"


def test_it_guesses_nothing() -> None:
    assert detect_licence({}) == (None, "no licence file")
    assert detect_licence({"LICENSE": "All rights reserved."}) == (None, "not recognised: LICENSE")


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("// SPDX-License-Identifier: MIT\n", "MIT"),
        ("# SPDX-License-Identifier: (MIT OR Apache-2.0)\n", "(MIT OR Apache-2.0)"),
        ("/* SPDX-License-Identifier: GPL-2.0+ */\n", "GPL-2.0+"),
        (
            "# " + _GNU.format(what="program", which="", version=_LATER.format(3)).replace("\n", "\n# "),
            "GPL-3.0-or-later",
        ),
        (
            " * " + _GNU.format(what="file", which="Lesser", version="version 2.1").replace("\n", "\n * "),
            "LGPL-2.1-only",
        ),
        ("// " + _RUST.replace("\n", "\n// "), "Apache-2.0 OR MIT"),
        ("# Licensed under the Apache License, Version 2.0 (the License);\n", "Apache-2.0"),
        ("/* This Source Code Form is subject to the terms of the Mozilla Public\n * License, v. 2.0. */", "MPL-2.0"),
        ("# Licensed under the MIT License.\n", "MIT"),
        ("# Use of this source code is governed by a licence that is in the LICENSE file.\n", None),
        ("x = 1\n" * 1000 + "# SPDX-License-Identifier: MIT\n", None),
        ("# SPDX-License-Identifier:\n", None),
    ],
)
def test_a_file_states_its_licence_at_its_top(text: str, expression: str | None) -> None:
    assert (file_licence(text) or Licence(None, "")).expression == expression


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-2.0-only) AND Apache-2.0", True),
        ("(GPL-2.0-only OR AGPL-3.0-only) AND Apache-2.0", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("Apache-2.0+", True),
        ("MIT/Apache-2.0", True),
        ("MIT OR", False),
        ("see LICENSE (", False),
        ("", False),
        (None, False),
    ],
)
def test_of_alternatives_one_must_be_allowed_and_of_parts_all(expression: str | None, allowed: bool) -> None:
    assert is_allowed(expression, ("MIT", "Apache-2.0")) is allowed


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("LICENSE", True),
        ("LICENCE.md", True),
        ("COPYING", True),
        ("UNLICENSE", True),
        ("LICENSE-MIT", True),
        ("NOTICE.txt", True),
        ("COPYRIGHT", True),
        ("third_party/LICENSE", True),
        ("licensed.py", False),
        ("license.go", False),
        ("license.json", False),
    ],
)
def test_it_knows_licence_files_by_their_names(path: str, expected: bool) -> None:
    assert is_licence_name(path) is expected
