"""A file in pieces: each as long as one sample may be, in characters and in tokens, and cut where its syntax allows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from daemon.samples.places import Places

# A text encoded in two or three parts has a few tokens more than in one.
SLACK_TOKENS = 3


class Cutter:
    """Cuts one text from its start to its end, piece by piece."""

    def __init__(self, places: Places, offsets: Sequence[tuple[int, int]]) -> None:
        """Take the text, and the characters at which each token of the whole text starts and ends."""
        self._places, self._end = places, len(places.text)
        self._token_starts: NDArray[np.int64] = np.fromiter((start for start, _ in offsets), np.int64, len(offsets))

    def next_piece(self, start: int, *, max_chars: int, max_tokens: int) -> int:
        """Return where the piece that begins at `start` ends: the full length allowed, or at the cut before it."""
        last = int(np.searchsorted(self._token_starts, start)) + max(1, max_tokens - SLACK_TOKENS)
        by_tokens = int(self._token_starts[last]) if last < len(self._token_starts) else self._end
        limit = max(start + 1, min(by_tokens, start + max_chars))
        return self._end if limit >= self._end else self._places.end_before(start, limit)
