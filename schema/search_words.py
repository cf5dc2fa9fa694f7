"""The words of code: identifiers whole and by their parts, for the index and for what people ask of it alike. Pure."""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

# Longer ones are data rather than names; a file of more different ones is found by its first.
MAX_WORD_CHARS = 64
MAX_WORDS = 1_000
MAX_DEFINED = 100

_WORD = re.compile(r"\w+")
# parseHTTPRequest2 → parse, HTTP, Request, 2
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_DEFINED = re.compile(
    r"\b(?:def|class|fn|func|function|struct|enum|trait|interface|type|mixin|extension)\s+(?:\([^()\n]*\)\s*)?(\w+)"
)


@lru_cache(maxsize=65_536)
def split_word(word: str) -> tuple[str, ...]:
    """Return an identifier in lower case, and its parts where it has several; nothing for a number."""
    whole = word.lower()
    if len(whole) > MAX_WORD_CHARS or whole.replace("_", "").isdecimal():
        return ()
    # Which letters are capitals is known of ASCII alone.
    parts = [part.lower() for part in (_PARTS.findall(word) if word.isascii() else word.split("_"))]
    named = [part for part in parts if len(part) > 1 and not part.isdecimal()]
    return (whole, *named) if len(parts) > 1 else (whole,)


def find_words(text: str) -> list[str]:
    """Return the runs of letters, digits and underscores of a text as they stand."""
    return _WORD.findall(text)


def make_words(texts: Iterable[str], *, limit: int = MAX_WORDS) -> list[str]:
    """Return the different words of some texts, whole and by their parts, in the order in which they come."""
    found: dict[str, None] = {}
    for text in texts:
        for word in dict.fromkeys(_WORD.findall(text)):
            found.update(dict.fromkeys(split_word(word)))
            if len(found) >= limit:
                return list(found)[:limit]
    return list(found)


def find_defined(content: str) -> Iterator[str]:
    """Yield the names of the first functions, classes and types that a file defines, by its keywords."""
    for number, match in enumerate(_DEFINED.finditer(content)):
        if number == MAX_DEFINED:
            return
        yield match[1]


def make_tags(kind: str, language: str | None, licence: str | None) -> Iterator[str]:
    """Yield what an entry is filtered by, as words that no text can hold: `language/python`, `licence/mit`."""
    yield f"kind/{kind}"
    if language:
        yield make_tag("language", language)
    for name in re.findall(r"[\w.+-]+", licence or ""):
        if name not in {"AND", "OR", "WITH"}:
            yield make_tag("licence", name)


def make_tag(name: str, value: str) -> str:
    """Return one of those words."""
    return f"{name}/{value.lower()}"


def name_word(word: str) -> str:
    """Return the word that stands for something named so."""
    return f"name/{word}"


def to_vector(words: Iterable[str]) -> str:
    """Return words as PostgreSQL reads a tsvector, without places: which words, not where."""
    return " ".join(map(quote, words))


def quote(word: str) -> str:
    """Return a word as tsvector and tsquery read it, whatever it holds."""
    escaped = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
