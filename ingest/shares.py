"""Several processes for one source: each takes every n-th of its files, and what they say comes in the files' order.

They are forked inside the box: its limits and its process group are theirs too, and the memory of all of them together
stays within it.
"""

import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ingest.entries import SourceFailed

# Less is judged before another process has begun.
_MIN_SHARE_BYTES = 500_000
# What judging a hostile file may take; where there is less for each, there are fewer processes.
_MIN_MEMORY_BYTES = 160 * 1024 * 1024
# An empty line, which no message is.
_END = b"\n"
_PIPE_FD = 3


@dataclass(frozen=True, slots=True)
class Shares:
    """How many processes are wanted for one source, and what takes the lines of their messages."""

    wanted: int
    forward: Callable[[bytes], object]

    def count_processes(self, num_bytes: int) -> int:
        """Return how many processes there are for a source with so many bytes to judge."""
        return max(1, min(self.wanted, num_bytes // _MIN_SHARE_BYTES, _memory_of_all() // _MIN_MEMORY_BYTES))


class Helper:
    """A forked process that looks at a share of the files, one of `num`."""

    def __init__(self, run: Callable[[BinaryIO], None], num: int) -> None:
        """Fork. What `run` writes is read here; the process ends with it."""
        memory_bytes = min(_limit(), _memory_of_all() // num)
        read_end, write_end = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            _run(run, write_end, memory_bytes)
        os.close(write_end)
        self._pipe = os.fdopen(read_end, "rb")

    def read_part(self) -> Iterator[bytes]:
        """Yield the lines up to the end of a part.

        Raises:
            SourceFailed: the process has ended before; if it could say why, that were its last lines.
        """
        for line in self._pipe:
            if line == _END:
                return
            yield line
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        raise SourceFailed("child_died", f"one of its processes ended, exit status {status}", is_permanent=False)

    def close(self) -> None:
        """Take leave of a process that has said everything."""
        self._pipe.close()
        os.waitpid(self._pid, 0)


def end_part(pipe: BinaryIO) -> None:
    """Write the end of a part."""
    pipe.write(_END)


def _run(run: Callable[[BinaryIO], None], write_end: int, memory_bytes: int) -> None:
    try:
        # Of the parent's files none stays open: when it ends, its worker must see that.
        os.dup2(write_end, _PIPE_FD)
        os.closerange(_PIPE_FD + 1, os.sysconf("SC_OPEN_MAX"))
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        with os.fdopen(_PIPE_FD, "wb") as pipe:
            run(pipe)
    finally:
        os._exit(0)


def _limit() -> int:
    """Return how much memory this process may take (bytes)."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return limit if limit != resource.RLIM_INFINITY else 1 << 40


def _memory_of_all() -> int:
    """Return what the processes may take together: the box has room for two like us, and we take little meanwhile."""
    return _limit() * 3 // 2
