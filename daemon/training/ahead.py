"""`python -m daemon.training.ahead JOB_DIR`: the material of a run, made while the child itself imports the libraries.

A process of its own, on a core of its own: it is started before torch is, which must not be forked. What it writes to
its standard output is for its parent alone, and it ends when that closes its standard input.
"""

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from daemon.job import FAILED, JOB, Event, Failure, Job
from daemon.training.child import Child, Failed
from daemon.training.failures import classify
from daemon.training.material import Material, make_material

_LOOK_S = 0.2
Told = tuple[list[Event], Material | Failure]


@contextlib.contextmanager
def making_ahead(job_dir: Path, child: Child) -> Iterator[Callable[[], Material]]:
    """Begin to make the material; yield what waits for it and returns it, as `make_material` would."""
    command = [sys.executable, "-m", "daemon.training.ahead", str(job_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield partial(_take, process, child)
        finally:
            process.kill()


def _take(process: subprocess.Popen[bytes], child: Child) -> Material:
    """Return what the process made; raise Failed as it did, or where it ended without a word, and obey a stop."""
    assert process.stdout is not None  # noqa: S101
    while not select.select([process.stdout], [], [], _LOOK_S)[0]:
        child.check_stop()
    try:
        told: Told = pickle.load(process.stdout)  # noqa: S301 - from our own process
    except (EOFError, pickle.UnpicklingError) as error:
        child.check_stop()
        message = f"the process that tokenizes ended with status {process.wait()}: see child.log"
        raise Failed("exception", message) from error
    events, made = told
    for event in events:
        child.emit(**event)
    if isinstance(made, Failure):
        raise Failed(made.reason, made.message, data_caused=made.data_caused) from RuntimeError(made.traceback)
    return made


def main() -> None:
    """Make the material of a job, and write it to standard output."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is log
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    with output:
        pickle.dump(_make(Path(sys.argv[1])), output, pickle.HIGHEST_PROTOCOL)


def _make(job_dir: Path) -> Told:
    """Return the events on the way, and the material or why there is none."""
    events: list[Event] = []
    try:
        job = Job.model_validate_json((job_dir / JOB).read_text())
        return events, make_material(job, job_dir, Child(events.append))
    except Exception as error:  # noqa: BLE001  (the edge of the process: its parent must learn why)
        return events, classify(error)


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(FAILED)


if __name__ == "__main__":
    main()
