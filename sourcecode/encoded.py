"""Does a text carry bytes as text: base64, hexadecimal digits, escapes? Nothing can be learnt from them."""

import re
from collections.abc import Iterator
from typing import Final

# BigCode's bounds for a file: one such run, or more than half of it.
MAX_BLOCK_BYTES: Final = 1024
MAX_SHARE: Final = 0.5

# One line of a wrapped blob, or a short one as a whole.
_MIN_RUN_BYTES: Final = 40
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-"
_IN_RUNS = bytes(ord("r") if byte in _ALPHABET else 0 for byte in range(256))
_SHORTEST = b"r" * _MIN_RUN_BYTES
# Each begins with what it repeats: the search for the first escape is then one for fixed bytes.
_ESCAPES = (
    re.compile(rb"\\x[0-9A-Fa-f]{2}(?:\\x[0-9A-Fa-f]{2}){11,}"),
    re.compile(rb"\\u[0-9A-Fa-f]{4}(?:\\u[0-9A-Fa-f]{4}){11,}"),
    re.compile(rb"\\[0-3][0-7]{2}(?:\\[0-3][0-7]{2}){11,}"),
)
# Long names, paths and rulers have words or one character; bytes in 40 characters of base64 have all three of these.
_KINDS = (re.compile(b"[A-Z]"), re.compile(b"[a-z]"), re.compile(b"[0-9]"))
_HEXADECIMAL = re.compile(b"[0-9a-f]+|[0-9A-F]+")
# Between two lines of one blob: quotes, operators, indentation.
_MAX_GAP_BYTES: Final = 48


def find_encoded(text: str) -> str | None:
    """Return in words how much of a text is encoded bytes, if it is too much, or None. Linear in the text."""
    data = text.encode()
    runs = [run for run in _find_runs(data) if _is_encoded(data[slice(*run)])]
    runs += [found.span() for pattern in _ESCAPES for found in pattern.finditer(data)]
    total = block = longest = last = 0
    for start, end in sorted(runs):
        block = end - start + (block if start - last <= _MAX_GAP_BYTES else 0)
        longest, total, last = max(longest, block), total + end - start, end
    if longest > MAX_BLOCK_BYTES:
        return f"{longest} characters of encoded bytes in a row"
    if total > MAX_SHARE * len(data):
        return f"{total / len(data):.0%} of it is encoded bytes"
    return None


def _find_runs(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where base64's characters stand in a row."""
    marked = data.translate(_IN_RUNS) + b"\0"
    start = marked.find(_SHORTEST)
    while start >= 0:
        end = marked.index(0, start + _MIN_RUN_BYTES)
        yield start, end
        start = marked.find(_SHORTEST, end)


def _is_encoded(run: bytes) -> bool:
    if _HEXADECIMAL.fullmatch(run):
        return len(set(run)) > 2 and _KINDS[2].search(run) is not None and not run.isdigit()
    return all(kind.search(run) for kind in _KINDS)
