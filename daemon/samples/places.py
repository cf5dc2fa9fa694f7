"""Where one text may be cut: by its syntax where it parses, by its lines where it does not."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property

from sourcecode.languages import LANGUAGES
from sourcecode.syntax import cut_points, holes, top_level_spans

_LINE_ENDS = re.compile(r"\n")
# How far back to look for a place between two words, in a line too long to fit.
_WORD_CHARS = 200


class Places:
    """The offsets at which a text may be cut, each kind found when it is first asked for. All are characters."""

    def __init__(self, language: str, text: str) -> None:
        self.language, self.text = language, text
        self._parses = language in LANGUAGES

    @cached_property
    def lines(self) -> list[int]:
        """Where lines begin, the first left out."""
        return [match.end() for match in _LINE_ENDS.finditer(self.text) if match.end() < len(self.text)]

    @cached_property
    def statements(self) -> list[int]:
        """Where a line begins after a whole statement or definition of any depth."""
        return cut_points(self.language, self.text) if self._parses else []

    @cached_property
    def definitions(self) -> list[int]:
        """Where a line begins after a whole top-level statement or definition."""
        if not self._parses:
            return []
        found = []
        for _, end in top_level_spans(self.language, self.text):
            index = bisect_left(self.statements, end)
            if index < len(self.statements) and self.text.count("\n", end, self.statements[index]) <= 1:
                found.append(self.statements[index])
        return found

    @cached_property
    def _holes(self) -> list[tuple[int, int]]:
        return holes(self.language, self.text) if self._parses else []

    def holes_within(self, start: int, end: int, max_chars: int) -> list[tuple[int, int]]:
        """Return the whole syntax nodes in [start, end) of at most `max_chars`."""
        first, last = bisect_left(self._holes, (start, 0)), bisect_left(self._holes, (end, 0))
        return [hole for hole in self._holes[first:last] if hole[1] <= end and 0 < hole[1] - hole[0] <= max_chars]

    def split_near(self, start: int, end: int, aim: int) -> int | None:
        """Return the place in (start, end) nearest to `aim` with something to read on both sides; None without one.

        After a whole statement where there is one; else (no parser, or one long literal) at the start of a line.
        """
        first, last = self._first_word(start, end), self._last_word(start, end)
        for offsets in (self.statements, self.lines):
            found = nearest(offsets, first, last, aim)
            if found is not None:
                return found
        return None

    def end_before(self, start: int, limit: int) -> int:
        """Return where a piece from `start` ends: in (start, limit], as late as its syntax allows.

        Sequences are packed best when their samples are long, so a definition's end is only preferred to a statement's
        where it is nearly as late. Where a single statement takes most of the piece (a long table or docstring), a line
        is the end; without lines, a word.
        """
        room = limit - start
        for offsets, share in ((self.definitions, 0.85), (self.statements, 0.25), (self.lines, 0.5)):
            found = nearest(offsets, start + max(1, round(share * room)), limit, limit)
            if found is not None:
                return found
        return self._between_words(start, limit)

    def _first_word(self, start: int, end: int) -> int:
        """Return the offset after the first character that is no space."""
        return end - len(self.text[start:end].lstrip()) + 1

    def _last_word(self, start: int, end: int) -> int:
        """Return the offset of the last character that is no space."""
        return start + len(self.text[start:end].rstrip()) - 1

    def _between_words(self, start: int, limit: int) -> int:
        for offset in range(limit, max(start, limit - _WORD_CHARS), -1):
            if not (_is_word(self.text[offset - 1]) and _is_word(self.text[offset : offset + 1])):
                return offset
        return limit


def nearest(offsets: Sequence[int], first: int, last: int, aim: int) -> int | None:
    """Return the one of the sorted offsets in [first, last] that is nearest to `aim`, the lower of two."""
    low, high = bisect_left(offsets, first), bisect_right(offsets, last)
    if low >= high:
        return None
    index = min(max(bisect_left(offsets, aim), low), high - 1)
    candidates = offsets[max(low, index - 1) : index + 1]
    return min(candidates, key=lambda offset: (abs(offset - aim), offset))


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"
