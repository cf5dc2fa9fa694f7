"""The texts of a batch's candidates: fetched for many files at once, as many as a bounded memory holds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import sqlalchemy as sa

# Characters held at a time, and so brought by one statement.
MAX_CHARS = 8_000_000
# The first statement brings each file's likeliest candidate, which mostly decides; the next ones four times as many.
_GROWTH = 4

_FETCH = sa.text("SELECT id, content FROM processed_files WHERE id = ANY(:ids)")


class Sized(Protocol):
    """A stored file whose text may be asked for, and the text's length (characters)."""

    @property
    def id(self) -> int:
        """Its row."""

    @property
    def num_chars(self) -> int:
        """Its length."""


class CandidateTexts:
    """Texts by file id, for a caller that goes through a batch in its order and seldom asks for all of a file's."""

    def __init__(self, conn: sa.Connection) -> None:
        self._conn = conn
        self._expected: Mapping[int, Sequence[Sized]] = {}
        self._depth = 1
        self._texts: dict[int, str | None] = {}
        self._room = MAX_CHARS

    def expect(self, candidates: Mapping[int, Sequence[Sized]]) -> None:
        """Say what may be asked for: by ordinal, in order; the likeliest of each first."""
        self._expected, self._depth = candidates, 1

    def fetch(self, ordinal: int, wanted: Sized) -> str | None:
        """Return the text of a candidate, None if it was dropped. A miss brings those of later files along."""
        if wanted.id not in self._texts:
            self._fetch_block(ordinal, wanted)
        return self._texts[wanted.id]

    def _fetch_block(self, ordinal: int, wanted: Sized) -> None:
        if wanted.num_chars > self._room:
            self._texts, self._room = {}, MAX_CHARS
        self._room -= wanted.num_chars
        ids = {wanted.id}
        for other in self._list_next(ordinal):
            if other.id in ids or other.id in self._texts:
                continue
            if other.num_chars > self._room:
                break
            self._room -= other.num_chars
            ids.add(other.id)
        for file_id, text in self._conn.execute(_FETCH, {"ids": list(ids)}):
            self._texts[file_id] = text
        self._depth *= _GROWTH

    def _list_next(self, first: int) -> Iterable[Sized]:
        for ordinal, candidates in self._expected.items():
            if ordinal >= first:
                yield from candidates[: self._depth]
