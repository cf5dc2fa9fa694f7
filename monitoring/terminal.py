"""The console that log lines and progress bars share, so that neither tears the other."""

import sys
from functools import cache
from typing import TextIO

from rich.console import Console


@cache
def _console_on(stream: TextIO) -> Console:
    return Console(file=stream)


def console_on(stream: TextIO | None = None) -> Console:
    """Return the one console of a stream (standard error if none is given)."""
    return _console_on(stream or sys.stderr)
