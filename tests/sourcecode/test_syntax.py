"""Trees of hostile input, cut points and holes."""

import sysconfig
from pathlib import Path

import pytest
from tree_sitter import Tree

from sourcecode.languages import LANGUAGES
from sourcecode.syntax import count_nesting, cut_points, holes, measure_errors, parse, top_level_spans

EXAMPLES = {
    "python": '"""Über."""\n\n\ndef add(a, b):\n    if a:\n        return a + b\n    # süß\n    return b\n\n\nprint(\n    add(1, 2)\n)\n',  # noqa: E501
    "go": "package p\n\n// Grüße\nfunc Add(a, b int) int {\n\tif a > 0 {\n\t\treturn a + b\n\t}\n\treturn b\n}\n",
    "rust": "/// Grüße\nfn add(a: u32, b: u32) -> u32 {\n    let c = add(a, b);\n    c + 1\n}\n\n#[test]\nfn other() {}\n",  # noqa: E501
    "typescript": "/** Grüße */\nexport class A<T> {\n  x: number = 1;\n  add(a: number): number {\n    return f(a, 2);\n  }\n}\n",  # noqa: E501
    "javascript": "// Grüße\nfunction add(a, b) {\n  const c = g(a, b);\n  return c;\n}\n\nadd(1, 2);\n",
    "dart": "/// Grüße\nclass A {\n  final int x = 1;\n  int add(int a) {\n    return f(a, 2);\n  }\n}\n",
}
# The line that begins after each cut.
CUTS = {
    "python": ["", "    # süß", ""],
    "go": ["", "\t}", "\treturn b", "}"],
    "rust": ["    c + 1", "}", ""],
    "typescript": ["  add(a: number): number {", "  }", "}"],
    "javascript": ["  return c;", "}", ""],
    "dart": ["  int add(int a) {", "  }", "}"],
}
HOLES = {
    "python": {"return a + b", "a", "add(1, 2)", "1", "if a:\n        return a + b"},
    "go": {"return a + b", "a > 0", "a + b"},
    "rust": {"let c = add(a, b);", "add(a, b)", "{}", "fn other() {}"},
    "typescript": {"f(a, 2)", "1", "2", "{\n    return f(a, 2);\n  }"},
    "javascript": {"g(a, b)", "return c;", "add(1, 2);"},
    "dart": {"(a, 2)", "2", "return f(a, 2);", "{\n    return f(a, 2);\n  }"},
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_parses_every_language_without_errors(language: str) -> None:
    tree = parse(language, EXAMPLES[language])
    assert isinstance(tree, Tree)
    assert measure_errors(tree) == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_cuts_where_a_line_begins_after_a_statement(language: str) -> None:
    text = EXAMPLES[language]
    points = cut_points(language, text)
    assert points == sorted(set(points))
    assert all(text[point - 1] == "\n" and 0 < point < len(text) for point in points)
    assert [text[point:].partition("\n")[0] for point in points] == CUTS[language]


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_finds_whole_nodes_to_fill_in(language: str) -> None:
    text = EXAMPLES[language]
    spans = holes(language, text)
    assert spans == sorted(set(spans))
    assert {text[start:end] for start, end in spans} >= HOLES[language]
    assert not any("Grüße" in text[start:end] and text[start:end].startswith("/") for start, end in spans)


def test_it_finds_the_top_level_statements_without_comments() -> None:
    text = EXAMPLES["javascript"]
    assert [text[start:end] for start, end in top_level_spans("javascript", text)] == [
        "function add(a, b) {\n  const c = g(a, b);\n  return c;\n}",
        "add(1, 2);",
    ]


def test_it_reads_jsx_in_typescript_and_casts_that_jsx_cannot_read() -> None:
    for text in ("const a = <div>{x}</div>;\n", "const a = <string>b;\n"):
        tree = parse("typescript", text)
        assert isinstance(tree, Tree)
        assert not tree.root_node.has_error


def test_it_cuts_and_fills_real_code_at_every_35_percent() -> None:
    for name in ("json/decoder.py", "argparse.py", "textwrap.py"):
        text = (Path(sysconfig.get_path("stdlib")) / name).read_text()
        points = cut_points("python", text)
        nearest = min(points, key=lambda point: abs(point - 0.35 * len(text)))
        assert abs(nearest - 0.35 * len(text)) < 0.02 * len(text)
        assert sum(20 <= end - start <= 400 for start, end in holes("python", text)) > 50


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "[" * 200_000 + "]" * 200_000),
        ("javascript", "(" * 100_000),
        ("go", "{(" * 50_000),
        ("rust", "{" * 100_000),
        ("typescript", "[" * 100_000),
        ("dart", "{[(" * 33_334),
        ("python", "x = (\n" + "lambda:\n" * 30_000 + "1)\n"),
        ("python", "not " * 20_000 + "x\n"),
        ("javascript", "x =\n" + "a=>\n" * 60_000 + "1;\n"),
        ("javascript", "if (a) {}\n" + "else if (a) {}\n" * 15_000),
        ("rust", "a." * 30_000 + "b"),
        ("dart", "var x =\n" + "!\n" * 100_000 + "true;\n"),
    ],
)
def test_it_refuses_deep_nesting_with_and_without_brackets(language: str, text: str) -> None:
    assert parse(language, text) == "nesting"
    assert cut_points(language, text) == []
    assert holes(language, text) == []
    assert top_level_spans(language, text) == []


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "".join(" " * depth + "if x:\n" for depth in range(600))),
        ("javascript", "!" * 1_900 + "x"),
        ("go", "\x00\x01)(}{" * 5_000),
        ("dart", "/*" * 2_000),
        ("typescript", "<" * 20_000),
        ("python", ""),
    ],
)
def test_it_survives_hostile_text(language: str, text: str) -> None:
    tree = parse(language, text)
    assert isinstance(tree, Tree) or tree == "parse_time"
    assert all(0 < point < len(text) for point in cut_points(language, text))
    assert all(0 <= start < end <= len(text) for start, end in holes(language, text))


def test_it_stops_a_parse_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sourcecode.syntax.MAX_PARSE_S", 0.0)
    assert parse("python", "x = [1, 2, 3]\n" * 20_000) == "parse_time"


def test_it_stops_a_parse_that_takes_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sourcecode.syntax.MAX_PARSE_S", 60.0)  # of a slow machine; and what lies free is used first
    assert parse("dart", "/*" * 100_000) == "parse_memory"


def test_it_refuses_a_text_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sourcecode.syntax.MAX_PARSE_BYTES", 10)
    assert parse("python", "x = 12345\n" * 2) == "too_large"


def test_it_counts_brackets_that_are_open_at_once() -> None:
    assert count_nesting(b"f([{1}], (2))") == 3
    assert count_nesting(b"x = 1") == 0
