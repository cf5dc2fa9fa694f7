"""The terms: frameworks, topics and libraries that raise a repository's score, and that the plan `terms` asks for."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ingest.github.kinds import split_words

_FILE = Path(__file__).with_name("terms.toml")
_WORD = re.compile(r"[a-z0-9]+")
GENERAL = "general"


@dataclass(frozen=True, slots=True)
class Term:
    """One term and the language it belongs to, or `general`. Many are words of every day: only there do they count."""

    text: str
    language: str


@cache
def load_terms() -> tuple[Term, ...]:
    """Return all terms in the file's order."""
    groups = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(
        Term(text, language) for language, topics in groups.items() for texts in topics.values() for text in texts
    )


def match_terms(name: str, description: str, topics: list[str], language: str) -> list[str]:
    """Return the terms that are a topic, or whole words of name or description, of a repository in `language`."""
    texts = [" ".join(_WORD.findall(text.lower())) for text in (name, description)] + [split_words(name)]
    haystack = " " + " | ".join(texts) + " "
    by_text, by_first = _index(language)
    matched = {topic for topic in topics if topic in by_text}
    for word in set(haystack.split()) & by_first.keys():
        matched.update(text for text, phrase in by_first[word] if phrase in haystack)
    return sorted(matched)


@cache
def _index(language: str) -> tuple[frozenset[str], dict[str, list[tuple[str, str]]]]:
    """Return the terms that count for a language: all, and by their first word with the phrase to look for."""
    by_first: dict[str, list[tuple[str, str]]] = {}
    texts = [term.text for term in load_terms() if term.language in (language, GENERAL)]
    for text in texts:
        words = _WORD.findall(text)
        by_first.setdefault(words[0], []).append((text, f" {' '.join(words)} "))
    return frozenset(texts), by_first
