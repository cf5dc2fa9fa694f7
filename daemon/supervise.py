"""Run one child (`python -m daemon.training VERB JOB_DIR`): watch it, pass orders on, never let it outlive us."""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal, Protocol

from daemon.job import DONE, STOPPED, Event, Failure
from daemon.trace import start_thread

log = logging.getLogger(__name__)
_STEP_S = 1.0
_ERROR_FILE = "error.json"

Outcome = Literal["done", "stopped", "killed", "failed"]
Order = Literal["go_on", "stop", "kill"]


class Child(Protocol):
    """What the supervisor asks of its caller once a second."""

    def obey(self) -> Order:
        """Return whether the child may go on, should checkpoint and stop, or must die at once (lease lost)."""

    def on_event(self, event: Event) -> None:
        """Take a progress event."""


def child_command(verb: str, job: Path) -> list[str]:
    """Return what runs a verb in a job directory."""
    return [sys.executable, "-m", "daemon.training", verb, str(job)]


def run_child(verb: str, job: Path, child: Child, *, stop_grace_s: float) -> Outcome:
    """Run the child to its end; return how it ended. `read_failure` says why it failed."""
    (job / _ERROR_FILE).unlink(missing_ok=True)
    with (job / "child.log").open("ab") as child_log:
        process = subprocess.Popen(
            child_command(verb, job),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=child_log,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C at the terminal reaches the supervisor first, which asks it to stop
        )
    try:
        stopped_by_us = _watch(process, child, stop_grace_s)
    finally:
        _end(process)
    outcome = _outcome(process.returncode, stopped_by_us)
    log.log(
        logging.INFO if outcome in ("done", "stopped") else logging.WARNING,
        "the child has ended: %s %s (status %d)",
        verb,
        outcome,
        process.returncode,
        extra={"event": "child_ended", "verb": verb, "outcome": outcome, "status": process.returncode},
    )
    return outcome


def _outcome(status: int, stopped_by_us: bool) -> Outcome:
    if status == DONE:
        return "done"
    # Told to stop, and slow and killed, or gone on its way out: it resumes from its last checkpoint. So does one that a
    # signal killed, which the caller counts.
    if stopped_by_us or status == STOPPED:
        return "stopped"
    return "killed" if status < 0 else "failed"


def read_failure(job: Path) -> Failure:
    """Return why the child in `job` failed; a child that was killed could not say it."""
    try:
        told = json.loads((job / _ERROR_FILE).read_bytes())
        # A path that is not UTF-8 leaves half a surrogate pair in the message.
        return Failure.model_validate_json(json.dumps(told, ensure_ascii=False).encode(errors="replace"))
    except FileNotFoundError:
        return Failure(reason="exception", message="the child ended without a word: see child.log", data_caused=False)
    except ValueError as error:
        message = f"the child's {_ERROR_FILE} cannot be read ({error}): see child.log"
        return Failure(reason="exception", message=message, data_caused=False)


def _watch(process: subprocess.Popen[bytes], child: Child, stop_grace_s: float) -> bool:
    """Follow the child until it ends or must be ended; return whether it had been told to."""
    events: queue.Queue[Event | None] = queue.Queue()
    start_thread("child-events", _read_events, process, events)
    deadline: float | None = None
    while True:
        # Its output may be held open by what it has started; what it said before it ended is read within a step.
        has_ended = process.poll() is not None
        order = "go_on" if has_ended else child.obey()
        if order == "kill":
            return True
        if order == "stop" and deadline is None:
            _ask_to_stop(process)
            deadline = time.monotonic() + stop_grace_s
        if _take_events(events, child) or has_ended:
            process.wait()
            return deadline is not None
        if deadline is not None and time.monotonic() > deadline:
            log.warning("the child did not stop in time and is killed", extra={"event": "child_killed"})
            return True


def _take_events(events: "queue.Queue[Event | None]", child: Child) -> bool:
    """Hand over what came within a step; return whether the child closed its output."""
    try:
        event = events.get(timeout=_STEP_S)
        while True:
            if event is None:
                return True
            child.on_event(event)
            event = events.get_nowait()
    except queue.Empty:
        return False


def _read_events(process: subprocess.Popen[bytes], events: "queue.Queue[Event | None]") -> None:
    assert process.stdout is not None  # noqa: S101
    for line in process.stdout:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            events.put(event)
        else:
            # A library printed to standard output: worth a line in the log, not worth the run.
            log.info("child: %s", line.decode(errors="replace").rstrip(), extra={"event": "child_output"})
    events.put(None)


def _ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101
    try:
        process.stdin.write(b'{"command": "stop"}\n')
        process.stdin.flush()
    except BrokenPipeError:
        log.info("the child had ended before it was asked to", extra={"event": "child_gone"})


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind, whatever happened: kill what still runs, close the pipes, reap."""
    # Its session is its own: what it has started there (a tracker, a compiler) goes with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                log.debug("an order to the child was never read", extra={"event": "child_gone"})
    process.wait()


def _environment() -> dict[str, str]:
    """Return our environment without our settings: the child gets those in its job, and no secret of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CODELUPE_")}
    failpoints = os.environ.get("CODELUPE_FAILPOINTS")
    return {**kept, **({"CODELUPE_FAILPOINTS": failpoints} if failpoints else {})}
