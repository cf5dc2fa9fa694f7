"""The list of terms, and how they are found."""

import re
from collections import Counter

import pytest

from ingest.github.terms import GENERAL, load_terms, match_terms
from ingest.github.windows import GITHUB_LANGUAGES

TOPIC = re.compile(r"[a-z0-9][a-z0-9-]{0,49}")


def test_there_are_enough_terms_each_is_a_possible_topic_and_none_is_there_twice() -> None:
    texts = [term.text for term in load_terms()]
    assert len(texts) >= 275
    assert [text for text, num in Counter(texts).items() if num > 1] == []
    assert [text for text in texts if not TOPIC.fullmatch(text)] == []


def test_every_language_has_terms_of_its_own() -> None:
    counts = Counter(term.language for term in load_terms())
    assert set(counts) == {*GITHUB_LANGUAGES, GENERAL}
    assert min(counts.values()) >= 25


@pytest.mark.parametrize(
    ("name", "description", "topics", "language", "terms"),
    [
        ("mini-redis", "Incomplete Redis client and server using Tokio", [], "rust", ["redis", "tokio"]),
        ("x", "", ["kubernetes", "unheard-of"], "go", ["kubernetes"]),
        ("x", "A time series database for tests", [], "go", ["database", "time-series"]),
        ("TensorFlowLite", "", [], "python", []),
        ("myFlask", "", [], "python", ["flask"]),
        ("x", "keep it in a flask", [], "rust", []),
        ("x", "democratic parsers, cachet and sqlite3", [], "rust", []),
        ("x", "machine | learning", [], "rust", ["machine-learning"]),
        ("machine", "learning", [], "rust", []),
    ],
)
def test_terms_are_found_as_topics_and_as_whole_words_of_their_language(
    name: str, description: str, topics: list[str], language: str, terms: list[str]
) -> None:
    assert match_terms(name, description, topics, language) == terms
