"""Which language a file is in."""

import pytest

from sourcecode.languages import detect_language


@pytest.mark.parametrize(
    ("path", "content", "language"),
    [
        ("a/b.py", b"", "python"),
        ("stubs/b.pyi", b"", "python"),
        ("main.go", b"", "go"),
        ("src/lib.rs", b"", "rust"),
        ("a.ts", b"export const a = 1;", "typescript"),
        ("a.tsx", b"", "typescript"),
        ("a.d.ts", b"", "typescript"),
        ("a.mts", b"", "typescript"),
        ("a.js", b"", "javascript"),
        ("a.jsx", b"", "javascript"),
        ("a.MJS", b"", "javascript"),
        ("lib/a.dart", b"", "dart"),
        # Qt Linguist's translations and MPEG transport streams are named *.ts too
        ("de.ts", b'<?xml version="1.0"?>\n<!DOCTYPE TS>', None),
        ("de.ts", b"\xef\xbb\xbf<!DOCTYPE TS>\n<TS>", None),
        ("de.ts", b'<TS version="2.1">', None),
        ("film.ts", (b"\x47" + b"\0" * 187) * 3, None),
        ("generic.ts", b"<T>(x: T) => x", "typescript"),
        # a script has no extension but says who runs it
        ("bin/tool", b"#!/usr/bin/python3\n", "python"),
        ("bin/tool", b"#!/usr/bin/env -S python3.11 -u\n", "python"),
        ("bin/tool", b"#!/usr/bin/env node\r\n", "javascript"),
        ("bin/tool", b"#! /usr/local/bin/dart\n", "dart"),
        ("bin/tool", b"#!/bin/sh\n# python\n", None),
        ("bin/tool", b"#!/usr/bin/env pythonic\n", None),
        ("Makefile", b"all:\n", None),
        ("a.c", b"#!/usr/bin/python\n", None),
        ("README.md", b"", None),
    ],
)
def test_it_detects_the_language_by_name_first_line_and_content(
    path: str, content: bytes, language: str | None
) -> None:
    assert detect_language(path, content) == language


def test_it_detects_by_the_name_alone_before_a_file_is_read() -> None:
    assert detect_language("a/b.ts") == "typescript"
    assert detect_language("a/tool") is None
