"""Does a text hold tasks of a public benchmark? By n-grams of its tokens, of which the list holds the hashes alone.

A model that has read HumanEval or MBPP scores well on them and has learnt nothing. The list is made by `codelupe ingest
benchmark-list` from files that the operator names; `benchmarks.bin` beside this file is the default, and its first line
names what it was made from: HumanEval, MBPP, their translations to Go, JavaScript and TypeScript (MXEval), and
HumanEval-X with Rust. Background were the standard libraries of Python and Deno, and six large projects.
"""

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from sourcecode.near_duplicates import Words, hash_tokens

# The length that is usual for the purpose since GPT-3. Tokens are runs of letters and digits of any case, so that
# comment marks, brackets and indentation do not matter, and translations share the words of a task.
NUM_TOKENS: Final = 13
# So many known n-grams within so many places are a copy: 20 tokens in a row, or a somewhat edited longer piece.
_NUM_HITS: Final = 8
_WINDOW: Final = 16
# An n-gram that so many tasks share is the benchmark's own frame, or an idiom.
_MAX_TASKS: Final = 3
_FORMAT: Final = 1
_SHIPPED: Final = Path(__file__).with_name("benchmarks.bin")
_BASE: Final = 0x9FB21C651E98DF25
# Most n-grams of ordinary code are told apart by their first bits, from a table that stays in the processor's cache.
_SIEVE_BITS: Final = 21
_SIEVE_SHIFT: Final = np.uint64(64 - _SIEVE_BITS)


class BadList(Exception):
    """A list of benchmark n-grams that cannot be used; the message names the file and the fix."""


@dataclass(frozen=True, slots=True, eq=False)
class BenchmarkList:
    """Known n-grams: `hashes` in order, and for each value of their first bits whether there is one."""

    hashes: Words
    sieve: npt.NDArray[np.bool_]


def find_benchmark(text: str, path: str | None = None) -> str | None:
    """Return in words what shows that a text holds a benchmark's task, or None. Linear in the text.

    Raises:
        BadList: the list at `path` (None: the shipped one) cannot be used.
    """
    known = load_list(path)
    ngrams = _hash_ngrams(hash_tokens(text))
    places = np.flatnonzero(known.sieve[(ngrams >> _SIEVE_SHIFT).astype(np.int64)])
    if not len(_find_dense(places)):
        return None
    places = places[_are_known(ngrams[places], known.hashes)]
    for start in _find_dense(places):
        if len(np.unique(ngrams[places[start : start + _NUM_HITS]])) == _NUM_HITS:
            return f"{len(places)} runs of {NUM_TOKENS} words are those of a benchmark"
    return None


def _find_dense(places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where _NUM_HITS of the places begin that lie within _WINDOW."""
    if len(places) < _NUM_HITS:
        return np.zeros(0, np.int64)
    return np.flatnonzero(places[_NUM_HITS - 1 :] - places[: len(places) - _NUM_HITS + 1] < _WINDOW)


@functools.cache
def load_list(path: str | None = None) -> BenchmarkList:
    """Read a list, the shipped one without a path; raises BadList."""
    file = Path(path) if path else _SHIPPED
    try:
        head, _, body = file.read_bytes().partition(b"\n")
        about = json.loads(head)
        hashes = np.frombuffer(body, "<u8").astype(np.uint64)
        is_ours = (about["format"], about["tokens"], about["hashes"]) == (_FORMAT, NUM_TOKENS, len(hashes))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadList(f"{file}: no list of benchmark n-grams ({type(error).__name__}); {_FIX}") from error
    if not is_ours or bool(np.any(hashes[1:] <= hashes[:-1])):
        raise BadList(f"{file}: a list of another version, or torn; {_FIX}")
    sieve = np.zeros(1 << _SIEVE_BITS, np.bool_)
    sieve[hashes >> _SIEVE_SHIFT] = True
    return BenchmarkList(hashes, sieve)


def make_list(tasks: Iterable[Sequence[str]], *, sources: Sequence[str], background: Iterable[str] = ()) -> bytes:
    """Return the list of tasks, each in all its languages and forms: a line of JSON, then hashes in order.

    What many tasks share, and what occurs in the texts of `background`, ordinary code, is left out.
    """
    of_tasks = [_unique([_hash_telling(text) for text in texts]) for texts in tasks]
    hashes, num_tasks = np.unique(np.concatenate([np.zeros(0, np.uint64), *of_tasks]), return_counts=True)
    hashes = hashes[num_tasks <= _MAX_TASKS]
    is_common = np.zeros(len(hashes), np.bool_)
    for text in background if len(hashes) else ():
        ngrams = _hash_ngrams(hash_tokens(text))
        at = np.minimum(np.searchsorted(hashes, ngrams), len(hashes) - 1)
        is_common[at[hashes[at] == ngrams]] = True
    hashes = hashes[~is_common]
    about = {"format": _FORMAT, "tokens": NUM_TOKENS, "hashes": len(hashes), "sources": list(sources)}
    return json.dumps(about).encode() + b"\n" + hashes.astype("<u8").tobytes()


_FIX: Final = "make one with: codelupe ingest benchmark-list FILE… --output LIST"


def _unique(parts: Sequence[Words]) -> Words:
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *parts]))


def _hash_telling(text: str) -> Words:
    """Hash the n-grams that have at least half as many different tokens as places: tables of numbers say little."""
    tokens = hash_tokens(text)
    ngrams = _hash_ngrams(tokens)
    num_different = [len(set(tokens[at : at + NUM_TOKENS].tolist())) for at in range(len(ngrams))]
    return ngrams[np.array(num_different, np.int64) * 2 > NUM_TOKENS]


def _hash_ngrams(tokens: Words) -> Words:
    """Return the hash of each NUM_TOKENS tokens in a row: a polynomial modulo 2^64, put together of 8, 4 and 1."""
    if len(tokens) < NUM_TOKENS:
        return np.zeros(0, np.uint64)
    two = _append(tokens, tokens, 1)
    four = _append(two, two, 2)
    return _append(_append(_append(four, four, 4), four, 8), tokens, 12)


def _append(first: Words, second: Words, num_tokens: int) -> Words:
    """Return the hashes of runs of `num_tokens` tokens with those of the runs after them."""
    num = len(second) - num_tokens
    return first[:num] + second[num_tokens:] * np.uint64(pow(_BASE, num_tokens, 1 << 64))


def _are_known(ngrams: Words, hashes: Words) -> npt.NDArray[np.bool_]:
    at = np.searchsorted(hashes, ngrams)
    known: npt.NDArray[np.bool_] = hashes[np.minimum(at, len(hashes) - 1)] == ngrams
    return known
