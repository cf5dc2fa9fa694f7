"""One id per tick: in its log lines, in the rows that it writes, and in the job of the child that it starts."""

import contextlib
import contextvars
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from monitoring.logs import log_ids
from schema.trace import in_tick


@contextlib.contextmanager
def new_tick(line: str) -> Iterator[str]:
    """Give what happens inside, in this thread, an id of its own; yield it."""
    tick = uuid.uuid4().hex[:16]
    with in_tick(tick), log_ids(line=line, tick=tick):
        yield tick


def start_thread(name: str, work: Callable[..., None], *args: Any) -> threading.Thread:
    """Start a thread that belongs to the tick which starts it: Python's own begin without any ids."""
    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(work, *args), name=name, daemon=True)
    thread.start()
    return thread
