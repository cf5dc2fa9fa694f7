"""Which language a file is in."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from ingest.config import IngestSettings
from ingest.judge import judge_file
from sourcecode.further import FURTHER
from sourcecode.grammars import load_grammar
from sourcecode.languages import EXTENSIONS, LANGUAGES, detect_language
from sourcecode.limits import Limits


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


_GO = """// Package a says hello.
package a

// Greet returns a greeting for a person.
func Greet(person string) string {
	if person == "" {
		return "hello"
	}
	return "hello " + person
}
"""


@pytest.fixture
def _java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package tree-sitter-java, as one is installed; its parser is Go's, so that no wheel is needed here."""
    (tmp_path / "tree_sitter_java.py").write_text("from tree_sitter_go import language\n")
    monkeypatch.syspath_prepend(tmp_path)
    load_grammar.cache_clear()
    yield
    load_grammar.cache_clear()


@pytest.mark.usefixtures("_java")
def test_a_further_language_is_judged_and_scored_where_it_is_named_and_its_grammar_is_there() -> None:
    settings = IngestSettings(languages=("python", "java"))
    judgement = judge_file("src/A.java", _GO.encode(), settings.limits, is_executable=False)
    assert (judgement.accepted, judgement.language) == (True, "java")
    assert judgement.details["structure"]["num_functions"] == 1
    assert judgement.components["documentation"] > judgement.components["naming"] > 0
    unnamed = judge_file("src/A.java", _GO.encode(), Limits(), is_executable=False)
    assert (unnamed.accepted, unnamed.reason) == (False, "language")


def test_every_further_language_has_extensions_of_its_own() -> None:
    extensions = [extension for further in FURTHER.values() for extension in further.extensions]
    assert len(extensions) == len(set(extensions))
    assert not set(extensions) & set(EXTENSIONS)
    assert not set(FURTHER) & set(LANGUAGES)


@pytest.mark.parametrize(
    ("languages", "words"),
    [
        (("python", "swift"), "no grammar for swift; pip install tree-sitter-swift"),
        (("csharp", "kotlin"), "pip install tree-sitter-c-sharp tree-sitter-kotlin"),
        (("cobol",), "cobol unknown; choose from python, .*swift"),
    ],
)
def test_a_language_whose_grammar_is_missing_is_named_with_the_package_to_install(
    languages: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        IngestSettings(languages=languages)
