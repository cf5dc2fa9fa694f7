"""What looks like a secret and is none: examples of documentation, sequences, words, things repeated."""

import math
from collections import Counter
from itertools import groupby, pairwise

import re2

# Documentation shows keys that nobody can use: AWS's own example ends in EXAMPLE, others repeat a character.
_SHOWN = re2.compile(r"(?i)example|xxxx|placeholder|redacted|changeme|your[_-]")
_WORDS = re2.compile(
    r"(?i)example|sample|dummy|fake|test|your|mock|placeholder|change|replace|insert|redacted|secret|passw|hunter2|token"
    r"|default|invalid|wrong|foo|bar|user|admin|guest|s3cr3t|p[a4@]ss|key|none|null|todo|some|my[_-]|xx|\*\*|\.\.\."
)
# A word of a name: at its begin, after a joint, or with a capital.
_NAME_WORD = re2.compile(r"(?:^|[_.:-]|[A-Z])[a-z]{2,}|(?:^|[_.:-])[A-Z]{2,}")
_NAME_SHARE = 0.8
_DIGIT, _LETTER = re2.compile(r"[0-9]"), re2.compile(r"[A-Za-z]")
_MAX_SEQUENCE, _MAX_REPEATED = 8, 8  # in a vendor's format; half of it where chance is all there is


def measure_entropy(value: str) -> float:
    """Return Shannon's entropy of the characters, in bits per character."""
    length = len(value)
    return -sum(num / length * math.log2(num / length) for num in Counter(value).values())


def is_shown(value: str) -> bool:
    """Say whether a value in a vendor's format is an example: marked as one, or made without chance."""
    return _SHOWN.search(value) is not None or _is_regular(value, _MAX_SEQUENCE, _MAX_REPEATED)


def is_made_up(value: str) -> bool:
    """Say whether a value in no format is the kind that people write to stand for a secret."""
    return _WORDS.search(value) is not None or _is_regular(value, _MAX_SEQUENCE // 2, _MAX_REPEATED // 2)


def is_name(value: str) -> bool:
    """Say whether it is words put together, as names of things are, and not made by chance."""
    return sum(len(word) for word in _NAME_WORD.findall(value)) >= _NAME_SHARE * len(value)


def is_mixed(value: str) -> bool:
    """Say whether it holds both digits and letters."""
    return _DIGIT.search(value) is not None and _LETTER.search(value) is not None


def _is_regular(value: str, max_sequence: int, max_repeated: int) -> bool:
    """Say whether it has a run like `abcdef` or like `aaaaaa` of so many characters, and of a quarter of it."""
    at_least = len(value) // 4  # of a long value a part may be regular
    if max((len(list(run)) for _, run in groupby(value)), default=0) >= max(max_repeated, at_least):
        return True
    steps = (ord(after) - ord(before) for before, after in pairwise(value))
    return max((len(list(run)) + 1 for step, run in groupby(steps) if step == 1), default=0) >= max(
        max_sequence, at_least
    )
