"""What somebody typed, as tsqueries of quoted words: nothing of it is syntax to PostgreSQL. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schema.search_words import find_words, name_word, quote, split_word

MAX_QUERY_CHARS = 400
MIN_PREFIX_CHARS = 3


class SearchError(ValueError):
    """The query cannot be answered; the message names what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query in two parts, which exclude each other, and what is to be marked in what it finds."""

    named: str  # tsquery: every word names it
    other: str  # tsquery: it holds every word, and not all of them name it
    words: frozenset[str]
    prefixes: tuple[str, ...]


def parse_query(query: str) -> Query:
    """Turn what somebody typed into tsqueries of quoted words. Raises SearchError."""
    if len(query) > MAX_QUERY_CHARS:
        raise SearchError(f"the query has {len(query)} characters: at most {MAX_QUERY_CHARS} are looked for")
    wanted: list[tuple[str, ...]] = []
    unwanted: list[str] = []
    words: set[str] = set()
    prefixes: list[str] = []
    for term in query.split():
        found = [split for word in find_words(term) if (split := split_word(word))]
        if term.startswith("-"):
            unwanted += [f"!{_match(split)}" for split in found]
            continue
        if term.endswith("*") and found:
            prefixes.append(_check_prefix(found.pop()[0]))
        wanted += found
        words.update(*found)
    if not wanted and not prefixes:
        raise SearchError(f"there is no word to look for in {query!r}: give letters, not signs or numbers alone")
    named, plain = (
        " & ".join([*(_match(split, wrap) for split in wanted), *(f"{quote(wrap(one))}:*" for one in prefixes)])
        for wrap in (name_word, str)
    )
    out = "".join(f" & {one}" for one in unwanted)
    return Query(f"{named}{out}", f"{plain} & !({named}){out}", frozenset(words), tuple(prefixes))


def _check_prefix(word: str) -> str:
    if len(word) < MIN_PREFIX_CHARS:
        raise SearchError(f"{word}* is too short: give at least {MIN_PREFIX_CHARS} characters before the *")
    return word


def _match(split: Sequence[str], wrap: Callable[[str], str] = str) -> str:
    whole, *parts = (quote(wrap(word)) for word in split)
    # One part alone would find too much: `sha` for sha256.
    return f"({whole} | ({' & '.join(parts)}))" if len(parts) > 1 else whole
