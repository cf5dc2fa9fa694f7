"""Near-duplicates: MinHash bands to find the candidates by, and the true Jaccard similarity to decide by.

A shingle is five tokens in a row, a token a run of letters, digits and underscores of any case. All of it is integer
arithmetic on the text's UTF-8 bytes with constants of our own, so that the bands are the same on every machine and with
every version of Python and NumPy: stored ones stay comparable. Bytes above ASCII count as letters.
"""

import functools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# Bands of another version mean nothing beside these: count it up with every change that changes one of them.
BANDS_VERSION: Final = 1
NUM_BANDS: Final = 14
# A pair of similarity s shares a band with probability 1 - (1 - s^8)^14: 0.05 at 0.5, 0.56 at 0.7, 0.92 at 0.8.
ROWS_PER_BAND: Final = 8
SHINGLE_TOKENS: Final = 5
# A text with fewer different shingles has no bands: a licence line or an import decides its similarity.
MIN_SHINGLES: Final = 10

Words = npt.NDArray[np.uint64]
_GOLDEN: Final = 0x9E3779B97F4A7C15
_BASE: Final = 0xD6E8FEB86659FD93
# Shingles hashed at a time: 112 x 1,024 words of 4 bytes stay in the second-level cache.
_CHUNK: Final = 1024
# Text hashed at a time (bytes), which bounds the memory whatever the text's length.
_BLOCK: Final = 1 << 18


def _mix(words: Words) -> Words:
    """Scramble 64-bit words (the finaliser of SplitMix64, a bijection)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _constants(seed: int, num: int) -> Words:
    """Return `num` fixed words that look random."""
    return _mix(np.arange(seed, seed + num, dtype=np.uint64) * np.uint64(_GOLDEN))


def _make_letters() -> Words:
    """Return the value of each byte in a token's hash; 0 where it separates tokens."""
    letters = _constants(1_000, 256)
    letters[65:91] = letters[97:123]
    is_letter = np.array([byte >= 128 or chr(byte).isalnum() or byte == ord("_") for byte in range(256)])
    return np.where(is_letter, letters, np.uint64(0))


def _powers(base: int) -> Words:
    """Return the powers of a base modulo 2^64, for each place of a block and a separator on either side."""
    powers: Words = np.multiply.accumulate(np.full(_BLOCK + 2, base, np.uint64))
    return powers


_LETTERS: Final = _make_letters()
_POWERS: Final = _powers(_BASE)
_INVERSE_POWERS: Final = _powers(pow(_BASE, -1, 1 << 64))
_FACTORS: Final = (_constants(3_000, NUM_BANDS * ROWS_PER_BAND) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
_SUMMANDS: Final = (_constants(4_000, NUM_BANDS * ROWS_PER_BAND) >> np.uint64(32)).astype(np.uint32)
_ROW_FACTORS: Final = _constants(5_000, ROWS_PER_BAND) | np.uint64(1)
_BAND_SALTS: Final = _constants(6_000, NUM_BANDS)


def make_positions(seed: int, num: int) -> Words:
    """Return `num` odd factors, one for each place of an n-gram."""
    return _constants(seed, num) | np.uint64(1)


_POSITIONS: Final = make_positions(2_000, SHINGLE_TOKENS)


def make_bands(text: str) -> list[int]:
    """Return NUM_BANDS signed 64-bit hashes, equal in a place with probability s^8 for texts of similarity s.

    Empty for a text with fewer than MIN_SHINGLES different shingles.
    """
    shingles = make_shingles(text)
    if len(shingles) < MIN_SHINGLES:
        return []
    least = _least_hashes((shingles >> np.uint64(32)).astype(np.uint32))
    rows = _mix(least.astype(np.uint64).reshape(NUM_BANDS, ROWS_PER_BAND) * _ROW_FACTORS)
    folded = np.bitwise_xor.reduce(_mix(rows + _ROW_FACTORS), axis=1)
    bands: list[int] = _mix(folded ^ _BAND_SALTS).view(np.int64).tolist()
    return bands


def similarity(one: str, other: str) -> float:
    """Return the Jaccard similarity of two texts' sets of shingles; 0 where neither has any."""
    first, second = make_shingles(one), make_shingles(other)
    num_common = len(np.intersect1d(first, second, assume_unique=True))
    return num_common / max(1, len(first) + len(second) - num_common)


@functools.lru_cache(maxsize=64)  # one file is compared with several in a row, and those with the next one too
def make_shingles(text: str) -> Words:
    """Return the hashes of a text's shingles, each once, in order."""
    words = np.sort(hash_ngrams(hash_tokens(text), _POSITIONS))
    return words[np.concatenate([words[1:] != words[:-1], [True]])] if len(words) else words


@functools.lru_cache(maxsize=1)  # a file is looked at for benchmarks, then for duplicates
def hash_tokens(text: str) -> Words:
    """Return the hash of each token of a text, in its order. Not to be written to."""
    return np.concatenate([np.zeros(0, np.uint64), *map(_hash_tokens, _cut(text.encode("utf-8", "surrogatepass")))])


def hash_ngrams(tokens: Words, positions: Words) -> Words:
    """Return the hash of each run of as many tokens as there are factors in `positions`, in order."""
    num = max(0, len(tokens) - len(positions) + 1)
    sums = np.zeros(num, np.uint64)
    for place, factor in enumerate(positions):
        sums += tokens[place : place + num] * factor
    return _mix(sums)


def _cut(data: bytes) -> Sequence[bytes]:
    """Cut after a line's end, so that no token is cut in two; a longer line is cut anywhere."""
    blocks, start = [], 0
    while len(data) - start > _BLOCK:
        end = data.rfind(b"\n", start, start + _BLOCK) + 1 or start + _BLOCK
        blocks.append(data[start:end])
        start = end
    return [*blocks, data[start:]]


def _hash_tokens(block: bytes) -> Words:
    """Hash each token: the sum of letter times power of its place, as the difference of two running sums."""
    letters = _LETTERS[np.frombuffer(b" %b " % block, np.uint8)]
    is_letter = letters != 0
    edges = np.flatnonzero(is_letter[1:] != is_letter[:-1])
    before, last = edges[::2], edges[1::2]
    sums = np.cumsum(letters * _POWERS[: len(letters)])
    return _mix((sums[last] - sums[before]) * _INVERSE_POWERS[before])


def _least_hashes(shingles: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return the least value of each of the hash functions x -> a x + b (mod 2^32) over the shingles."""
    least: npt.NDArray[Any] = np.full(len(_FACTORS), np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, len(shingles), _CHUNK):
        hashes = shingles[start : start + _CHUNK] * _FACTORS[:, None]
        hashes += _SUMMANDS[:, None]
        np.minimum(least, hashes.min(axis=1), out=least)
    return least
