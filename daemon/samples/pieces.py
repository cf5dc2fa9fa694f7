"""A file in pieces: each short enough for one sample, in characters and in tokens."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from daemon.samples.places import Places

# A text encoded in two parts has a few tokens more than in one.
SLACK_TOKENS = 6


def cut_pieces(
    places: Places, token_starts: NDArray[np.int64], max_chars: int, max_tokens: int
) -> list[tuple[int, int]]:
    """Return the pieces of a text, as character spans that cover it.

    Args:
        token_starts: the character at which each token of the whole text begins, ascending.
        max_chars: most characters of a piece.
        max_tokens: most tokens of a piece, counted in the whole text.
    """
    return list(_cut(places, token_starts, max_chars, max(1, max_tokens - SLACK_TOKENS)))


def _cut(places: Places, token_starts: NDArray[np.int64], max_chars: int, max_tokens: int) -> Iterator[tuple[int, int]]:
    start, end = 0, len(places.text)
    while start < end:
        first = int(np.searchsorted(token_starts, start))
        num_left = len(token_starts) - first
        num_pieces = math.ceil(max(num_left / max_tokens, (end - start) / max_chars))
        if num_pieces <= 1:
            yield start, end
            return
        limit = min(_char_after(token_starts, first, max_tokens, end), start + max_chars)
        aim = min(_char_after(token_starts, first, num_left // num_pieces, end), limit)
        cut = places.end_near(start, max(aim, start + 1), max(limit, start + 1))
        yield start, cut
        start = cut


def _char_after(token_starts: NDArray[np.int64], first: int, num_tokens: int, end: int) -> int:
    """Return the character at which the `num_tokens` tokens from `first` are over."""
    last = first + num_tokens
    return int(token_starts[last]) if last < len(token_starts) else end


def char_starts(offsets: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return the first of each pair; [num_tokens]."""
    return np.fromiter((start for start, _ in offsets), np.int64, len(offsets))
