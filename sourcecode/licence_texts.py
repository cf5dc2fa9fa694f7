"""Which licences' texts does this text contain? By shared word trigrams; sourcecode/licences.json holds hashes alone.

A licence whose trigrams occur to four fifths is a candidate. Of two that are mostly the same words (BSD-2-Clause and
BSD-3-Clause, GPL and AGPL) the words that only one of them has decide.
"""

import base64
import json
import re
import zlib
from array import array
from collections.abc import Iterable
from functools import cache
from pathlib import Path

DATA = Path(__file__).with_name("licences.json")
# A longer licence is stored as the trigrams whose hash a power of two divides: about so many of them.
_SKETCH = 512
_SHARE = 0.8
_ALIKE = 0.5
_FEW = 3
# A line that names a year or a holder is different in every copy.
_COPYRIGHT = re.compile(
    r"^.{0,60}\bcopyright\s*(?:\(c\)|©|&copy;|<year>|\[year\]|\[yyyy\]|\d{4}).{0,120}$", re.MULTILINE
)
_WORD = re.compile(r"[a-z0-9]+")


def make_sketch(text: str) -> list[int]:
    """Return the trigram hashes of a licence's text that are stored."""
    hashes = _hash_trigrams(text)
    step = 1
    while len(hashes) > _SKETCH * step:
        step *= 2
    return sorted(number for number in hashes if number % step == 0)


def pack(sketch: Iterable[int]) -> str:
    """Return a sketch as text: 32 bits each, base64."""
    return base64.b64encode(array("I", sketch).tobytes()).decode()


def match_texts(text: str) -> list[str]:
    """Return the SPDX ids of the licences whose texts are in this text, in alphabetical order."""
    hashes = _hash_trigrams(text)
    shares = {spdx: len(sketch & hashes) / len(sketch) for spdx, sketch in _load().items()}
    candidates = {spdx: share for spdx, share in shares.items() if share >= _SHARE}
    return sorted(one for one in candidates if not any(_outdoes(other, one, hashes) for other in candidates))


def _outdoes(other: str, one: str, hashes: set[int]) -> bool:
    """Say whether `other` is what the text is, and `one` only looks like it."""
    if other == one:
        return False
    step = max(_step(_load()[one]), _step(_load()[other]))
    mine, theirs = ({number for number in _load()[spdx] if number % step == 0} for spdx in (one, other))
    if len(mine & theirs) < _ALIKE * min(len(mine), len(theirs)):
        return False
    return (_share(theirs - mine, hashes), other) > (_share(mine - theirs, hashes), one)


def _share(own: set[int], hashes: set[int]) -> float:
    """Return how much of one licence's own words is there; one that has none is it unless most of the other's are."""
    return len(own & hashes) / len(own) if len(own) >= _FEW else _ALIKE


def _step(sketch: frozenset[int]) -> int:
    step = 1
    while all(number % (2 * step) == 0 for number in sketch):
        step *= 2
    return step


def _hash_trigrams(text: str) -> set[int]:
    words = _WORD.findall(_COPYRIGHT.sub("", text.lower()).replace("licence", "license"))
    return {zlib.crc32(" ".join(words[at : at + 3]).encode()) for at in range(len(words) - 2)}


@cache
def _load() -> dict[str, frozenset[int]]:
    packed: dict[str, str] = json.loads(DATA.read_text(encoding="utf-8"))
    return {spdx: frozenset(array("I", base64.b64decode(text))) for spdx, text in packed.items()}
