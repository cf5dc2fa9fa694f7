"""The score must mean something: it spreads, and is explained by what it was made of."""

import re
import statistics
import sysconfig
from pathlib import Path

import pytest
from tree_sitter import Tree

from sourcecode.languages import LANGUAGES
from sourcecode.scores import WEIGHTS, Score, score
from sourcecode.syntax import parse

_STDLIB = Path(sysconfig.get_path("stdlib"))
_NAMES = (
    "abc argparse ast base64 bisect bdb calendar cmd code codecs configparser contextlib copy csv dataclasses difflib dis"  # noqa: E501
    " doctest enum filecmp fileinput fnmatch fractions ftplib functools getpass gettext glob gzip heapq hmac imaplib"
    " inspect locale lzma mailbox mimetypes netrc numbers optparse pathlib pdb pickle platform plistlib pprint profile"
    " queue quopri random reprlib sched selectors shelve shlex shutil smtplib socket socketserver statistics string"
    " subprocess symtable tarfile tempfile textwrap threading timeit tokenize trace traceback typing uuid warnings wave"
    " weakref zipapp zipfile"
)
FILES = [_STDLIB / f"{name}.py" for name in _NAMES.split() if (_STDLIB / f"{name}.py").exists()]


def rate(text: str, language: str = "python") -> Score:
    """Score a text that parses."""
    tree = parse(language, text)
    assert isinstance(tree, Tree)
    return score(language, text, tree)


def test_it_spreads_over_the_standard_library() -> None:
    totals = sorted(rate(path.read_text()).total for path in FILES if path.stat().st_size < 60_000)
    deciles = statistics.quantiles(totals, n=10)
    assert deciles[8] - deciles[0] > 15
    assert 0.1 < sum(total < 70 for total in totals) / len(totals) < 0.8


def test_the_total_is_the_weighted_mean_of_five_explained_components() -> None:
    result = rate(FILES[0].read_text())
    assert abs(sum(WEIGHTS.values()) - 1) < 1e-9
    assert set(result.components) == set(result.details) == set(WEIGHTS)
    assert all(0 <= value <= 100 for value in result.components.values())
    assert result.total == pytest.approx(sum(WEIGHTS[k] * v for k, v in result.components.items()), abs=0.06)
    assert all(detail for detail in result.details.values())
    assert rate(FILES[0].read_text()) == result


GOOD = {
    "python": '"""Sums."""\n\n\ndef total_price(items: list[float]) -> float:\n    """Return the sum of all prices."""\n    total = 0.0\n    for price in items:\n        if price > 0:\n            total += price\n    return total\n',  # noqa: E501
    "go": "// Package prices sums.\npackage prices\n\n// TotalPrice returns the sum of all prices.\nfunc TotalPrice(items []float64) float64 {\n\ttotal := 0.0\n\tfor _, price := range items {\n\t\tif price > 0 {\n\t\t\ttotal += price\n\t\t}\n\t}\n\treturn total\n}\n",  # noqa: E501
    "rust": "//! Sums.\n\n/// Returns the sum of all prices.\npub fn total_price(items: &[f64]) -> f64 {\n    let mut total = 0.0;\n    for price in items {\n        if *price > 0.0 {\n            total += price;\n        }\n    }\n    total\n}\n",  # noqa: E501
    "typescript": "/** Sums. */\n\n/** Returns the sum of all prices. */\nexport function totalPrice(items: number[]): number {\n  let total = 0;\n  for (const price of items) {\n    if (price > 0) {\n      total += price;\n    }\n  }\n  return total;\n}\n",  # noqa: E501
    "javascript": "/** Sums. */\n\n/** Returns the sum of all prices. */\nexport function totalPrice(items) {\n  let total = 0;\n  for (const price of items) {\n    if (price > 0) {\n      total += price;\n    }\n  }\n  return total;\n}\n",  # noqa: E501
    "dart": "/// Sums.\nlibrary prices;\n\n/// Returns the sum of all prices.\ndouble totalPrice(List<double> items) {\n  var total = 0.0;\n  for (final price in items) {\n    if (price > 0) {\n      total += price;\n    }\n  }\n  return total;\n}\n",  # noqa: E501
}
RISKS = {
    "python": "\neval(items)\n",
    "go": "\nvar config = tls.Config{InsecureSkipVerify: true}\n",
    "rust": "\nfn f() { unsafe { std::mem::transmute::<u8, i8>(1) } }\n",
    "typescript": "\neval(items);\n",
    "javascript": "\nelement.innerHTML = items;\n",
    "dart": "\nfinal run = Process.run(a, b, runInShell: true);\n",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_is_judged_on_documentation_names_and_risks(language: str) -> None:
    text = GOOD[language]
    before = rate(text, language)
    bare = re.sub(r'(?m)^\s*(//|/\*\*|""").*\n', "", text)
    renamed = re.sub(r"\b(total_?price|items|total|price)\b", lambda m: f"v{len(m[0])}", text, flags=re.IGNORECASE)
    assert before.components["documentation"] > rate(bare, language).components["documentation"] + 30
    assert before.components["naming"] > rate(renamed, language).components["naming"] + 20
    assert before.components["security"] == 100
    assert rate(text + RISKS[language], language).components["security"] < 75
    assert before.details["complexity"]["max_paths"] == 3
    assert before.details["structure"]["num_functions"] == 1
    assert before.details["documentation"]["num_public"] == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_risky_word_in_a_comment_or_string_is_no_risk(language: str) -> None:
    mark = "#" if language == "python" else "//"
    risk = RISKS[language].strip()
    quiet = GOOD[language] + f"{mark} {risk}\n"
    assert rate(quiet, language).components["security"] == 100


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_empty_text_is_scored_low_and_without_error(language: str) -> None:
    assert rate("\n", language).total < 50


def test_an_example_in_a_doc_comment_is_no_dead_code() -> None:
    example = (
        "/// ```\n/// let items = load();\n/// let total = total_price(&items);\n/// assert!(total > 0.0);\n/// ```\n"
    )
    documented = GOOD["rust"].replace("pub fn", f"{example}pub fn")
    assert rate(documented, "rust").details["documentation"]["dead_code_share"] == 0
    assert rate(example.replace("/// ```\n", "") + GOOD["rust"], "rust").details["documentation"]["dead_code_share"] > 0
