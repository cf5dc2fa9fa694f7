"""The lines of a file that a search found, safe for a terminal, with the places of the words. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schema.search_words import split_word

MAX_LINES = 3
# Of a file with more the first ones are compared.
MAX_MATCHED = 50
# Of a longer line the part around its first match is shown.
MAX_LINE_CHARS = 200
_BEFORE_CHARS = 40
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Snippet:
    """One line: its number from 1, its text without control characters, and [begin, end) of each match in it."""

    line: int
    text: str
    matches: list[tuple[int, int]]


def find_snippets(content: str, words: frozenset[str], prefixes: Sequence[str]) -> list[Snippet]:
    """Return the lines with the most different words, in their order."""
    found = []
    needles = (*words, *prefixes)
    for number, line in enumerate(content.split("\n"), start=1):
        lowered = line.lower()
        # Taking a line apart costs a hundred times as much as to see that no word is in it.
        if any(needle in lowered for needle in needles) and (matched := _match(line, words, prefixes)):
            found.append((len(matched), -number, line))
            if len(found) == MAX_MATCHED:
                break
    best = sorted(found, reverse=True)[:MAX_LINES]
    return [_cut(number, line, words, prefixes) for number, line in sorted((-minus, line) for _, minus, line in best)]


def show_text(text: str) -> str:
    """Return a stranger's text as a terminal may show it: no control, no change of direction, no line break."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _match(line: str, words: frozenset[str], prefixes: Sequence[str]) -> set[str]:
    return {found for word in _WORD.findall(line) for found in _wanted(word, words, prefixes)}


def _wanted(word: str, words: frozenset[str], prefixes: Sequence[str]) -> Iterator[str]:
    for part in split_word(word):
        if part in words:
            yield part
        yield from (prefix for prefix in prefixes if part.startswith(prefix))


def _cut(number: int, line: str, words: frozenset[str], prefixes: Sequence[str]) -> Snippet:
    first = next(match.start() for match in _WORD.finditer(line) if any(_wanted(match[0], words, prefixes)))
    begin = max(0, first - _BEFORE_CHARS) if len(line) > MAX_LINE_CHARS else 0
    text = show_text(line.replace("\t", "    ").strip() if begin == 0 else line[begin : begin + MAX_LINE_CHARS])
    text = text[:MAX_LINE_CHARS]
    matches = [match.span() for match in _WORD.finditer(text) if any(_wanted(match[0], words, prefixes))]
    return Snippet(number, text, matches)
