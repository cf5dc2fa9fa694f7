"""The child's side of the pipe to its parent: events out, stop orders in, and why it failed."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from daemon.files import write_json
from daemon.job import FAILED, Event, Failure

Reason = Literal["nan", "loss_spike", "out_of_memory", "data", "base_missing", "disk", "device", "exception"]


class Stopped(Exception):
    """The parent asked to stop, and what had to be kept is on disk."""


class Failed(Exception):
    """The run cannot go on; the reason is one of `Failure.reason`."""

    def __init__(self, reason: Reason, message: str, *, data_caused: bool = False) -> None:
        super().__init__(message)
        self.failure = Failure(reason=reason, message=message, data_caused=data_caused)


class Child:
    """What a verb needs of its surroundings: where to tell events, and whether to stop."""

    def __init__(
        self, write: Callable[[Event], None], ids: Mapping[str, Any] | None = None, *, alone: bool = True
    ) -> None:
        """Tell events by `write`; one of several processes, not `alone`, only stops when all of them have agreed to."""
        self._writers, self._alone = [write], alone
        self._ids = dict(ids or {})
        self._stop = threading.Event()

    def emit(self, event: str, **fields: Any) -> None:
        """Tell the parent one event, with the ids of the job."""
        for write in self._writers:
            write({"event": event, **self._ids, **fields})

    def also(self, write: Callable[[Event], None]) -> None:
        """Tell events there as well."""
        self._writers.append(write)

    def note(self, note: str, message: str) -> None:
        """Tell what happened besides: its short name, and in words."""
        self.emit("note", note=note, message=message)

    def phase(self, name: str) -> None:
        """Say what begins now; stop here if that was asked for meanwhile."""
        self.check_stop()
        self.emit("phase", phase=name, at=round(time.time(), 3))

    def request_stop(self) -> None:
        """Make the work end at the next micro-batch."""
        self._stop.set()

    def stop_requested(self) -> bool:
        """Whether the parent asked to stop."""
        return self._stop.is_set()

    def check_stop(self) -> None:
        """Raise Stopped if the parent asked to stop, and nobody else would wait for this process."""
        if self._alone and self._stop.is_set():
            raise Stopped


def open_child(ids: Mapping[str, Any]) -> Child:
    """Claim standard output for events, and obey the control pipe and SIGTERM from now on.

    Of several processes that train together, the first alone tells events.
    """
    rank, num_ranks = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    events = os.dup(1)
    os.dup2(2, 1)  # what libraries print is log, not an event
    child = Child(lambda event: _write_line(events, event) if rank == 0 else None, ids, alone=num_ranks == 1)
    signal.signal(signal.SIGTERM, lambda *_: child.request_stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_obey, args=(child,), name="control-pipe", daemon=True).start()
    return child


def _write_line(descriptor: int, event: Event) -> None:
    line = json.dumps(event, allow_nan=False, default=str) + "\n"
    os.write(descriptor, line.encode())


def _obey(child: Child) -> None:
    """Read orders until the pipe closes: then the parent is gone, and an orphan must not train on."""
    pending = b""
    while chunk := os.read(0, 4096):
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            if line.strip() and json.loads(line).get("command") == "stop":
                child.request_stop()
    os._exit(FAILED)


def error_file(job_dir: Path) -> Path:
    """Return where this process says why it failed: of several, each has its own, and torchrun's parent chooses."""
    rank = os.environ.get("RANK")
    return job_dir / ("error.json" if rank is None else f"error-{rank}.json")


def save_failure(file: Path, failure: Failure) -> None:
    """Write why it failed."""
    write_json(file, failure.model_dump())
