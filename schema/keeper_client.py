"""How a client finds the keeper, talks to it, and starts it."""

import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from schema.places import EmbeddedError, Places

log = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S = 30.0
_KEEPER_LOG_MAX_BYTES = 1024 * 1024


class NotRunningError(Exception):
    """No keeper listens."""


def ask(places: Places, request: dict[str, Any]) -> dict[str, Any]:
    """Put one question to the keeper without becoming a client. Raises NotRunningError."""
    with connect(places) as connection:
        connection.settimeout(_ANSWER_TIMEOUT_S)
        try:
            return exchange(connection, request)
        except TimeoutError as error:
            pid = read_lock(places).get("pid", "unknown")
            raise EmbeddedError(
                f"the database's keeper, pid {pid}, does not answer: PostgreSQL is recovering; see {places.keeper_log}"
            ) from error


def connect(places: Places) -> socket.socket:
    """Connect to the keeper, where its own note says it listens: it may have been started with another TMPDIR."""
    path = read_lock(places).get("socket")
    if not path:
        raise NotRunningError
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise NotRunningError from error
    return connection


def exchange(connection: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request and read its one line of answer. Raises NotRunningError when the keeper goes away meanwhile."""
    received = b""
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
        while not received.endswith(b"\n"):
            part = connection.recv(65536)
            if not part:
                raise NotRunningError
            received += part
    except ConnectionError as error:
        raise NotRunningError from error
    answer: dict[str, Any] = json.loads(received)
    return answer


def read_lock(places: Places) -> dict[str, Any]:
    """Read the keeper's note in the lock file; empty when there is none, or half of one."""
    try:
        note: dict[str, Any] = json.loads(places.lock.read_bytes())
    except ValueError:
        return {}
    return note


def try_lock(places: Places) -> int | None:
    """Take the lock that keeper and PostgreSQL hold between them; None while anything of theirs lives."""
    fd = os.open(places.lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def start_keeper(
    places: Places, lock_fd: int, postgres_bin: Path | None, options: Mapping[str, str], grace_s: float
) -> None:
    """Start the keeper, give it our lock, and wait until it is ready. Raises EmbeddedError with what it said."""
    command = [sys.executable, "-m", "schema.keeper", os.fspath(places.home)]
    command += ["--lock-fd", str(lock_fd), "--grace-s", str(grace_s)]
    command += ["--postgres-bin", os.fspath(postgres_bin.expanduser().absolute())] if postgres_bin else []
    command += [f"--option={name}={value}" for name, value in options.items()]
    try:
        # Kept open, after an error too, our end of the lock would look like a keeper for ever.
        with os.fdopen(lock_fd) as lock:
            _rotate(places.keeper_log)
            with (
                places.keeper_log.open("ab") as keeper_log,
                subprocess.Popen(
                    command,
                    cwd=Path(__file__).resolve().parents[1],  # so that `schema` is this one
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=keeper_log,
                    pass_fds=(lock_fd,),
                    start_new_session=True,  # so that Ctrl-C at our terminal does not reach the database before us
                ) as process,
            ):
                lock.close()
                assert process.stdout is not None  # noqa: S101 - for the type checker
                _await_ready(process.stdout, places)
    except OSError as error:
        raise EmbeddedError(f"cannot start the database's keeper: {error} (log: {places.keeper_log})") from error


def _rotate(log_file: Path) -> None:
    if log_file.exists() and log_file.stat().st_size > _KEEPER_LOG_MAX_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))


def _await_ready(reports: Iterable[bytes], places: Places) -> None:
    for line in reports:
        report = json.loads(line)
        if "error" in report:
            raise EmbeddedError(report["error"])
        if "ready" in report:
            return
        log.info("%s", report["progress"], extra={"event": "keeper_progress"})
    raise EmbeddedError(f"the database's keeper ended at its start: see {places.keeper_log}")
