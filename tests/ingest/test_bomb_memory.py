"""What servers send to fill the memory fills half a gigabyte at most, by the default settings."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ingest.config import IngestSettings
from tests.ingest.bombs import BOMBS, watch_memory
from tests.ingest.helpers import SETTINGS, make_code
from tests.ingest.servers import serve

Fetch = Callable[..., list[tuple[object, ...]]]
_MAX_BYTES = 512 * 1024 * 1024


def test_no_bomb_takes_more_than_512_mb_of_memory_and_the_next_source_is_read(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch
) -> None:
    """The child with all its git processes, at every moment; the limits are the defaults."""
    once = SETTINGS.model_copy(update={"max_attempts": 1})
    assert once.child_memory_bytes == IngestSettings().child_memory_bytes
    with ExitStack() as stack:
        urls = [f"{stack.enter_context(serve(respond)).url}/alice/tool" for respond, _ in BOMBS]
        with watch_memory(os.getpid()) as peak:
            ingest(*urls, make_folder("good", {"a.py": make_code("a")}), settings=once)
    ends = [("dead", reason) for _, reason in BOMBS] + [("done", None)]
    assert fetch("SELECT state, reason FROM repositories ORDER BY id") == ends
    assert 0 < peak.num_bytes <= _MAX_BYTES, peak.parts
