"""Spans of a text made blank, so that patterns see the rest of it at its own places."""

from collections.abc import Sequence

Span = tuple[int, int]

_TO_SPACE = bytes(byte if byte == ord("\n") else ord(" ") for byte in range(256))


def blank(data: bytes, spans: Sequence[Span]) -> bytes:
    """Return the data with the bytes of the spans made spaces, but for newlines; spans may contain one another."""
    parts, done = [], 0
    blanks = data.translate(_TO_SPACE)
    for start, end in sorted(spans):
        if end > done and end > start:
            first = max(start, done)
            parts += [data[done:first], blanks[first:end]]
            done = end
    return b"".join([*parts, data[done:]])
