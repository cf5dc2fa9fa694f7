"""The keeper's loop: who uses the server, whether it lives, when to stop it.

Clients talk to it over the unix socket `keeper` in the private socket folder, one JSON object a line:

- `{"do": "hello", "purpose": text}`: `{"url": …}` once PostgreSQL is ready; a client from here on, until it closes
- `{"do": "status"}`: `{"keeper_pid", "postgres_pid", "is_ready", "pinned", "clients", "url", "version", "data"}`
- `{"do": "pin"}`: `{"pinned": true}`; PostgreSQL stays without clients
- `{"do": "stop"}`: unpins; `{"stopping": true}`, or `{"stopping": false, "clients": […]}` where it is in use

The pid of a client is what the kernel says, not the client.
"""

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any
from urllib.parse import quote

from schema.cluster import DATABASE, USER
from schema.places import PORT, EmbeddedError
from schema.postgres import Postgres

log = logging.getLogger("schema.keeper")

_MAX_REQUEST_BYTES = 64 * 1024
_LOG_CHECK_EVERY_S = 60.0
_RESTART_FIRST_S, _RESTART_LONGEST_S = 0.1, 30.0
_LIVED_WELL_S = 60.0
# Whoever started us must find us, whatever the grace.
_FIRST_CLIENT_WITHIN_S = 10.0


@dataclass(slots=True)
class _Connection:
    """One connection; a client once it said hello (`purpose` is set)."""

    socket: socket.socket
    pid: int
    purpose: str | None = None
    is_waiting: bool = False
    unread: bytes = b""


class Keeper:
    """The loop: one thread, so that PostgreSQL's parent-death signal is bound to the process."""

    def __init__(self, server: Postgres, *, grace_s: float):
        self._server = server
        self._grace_s = grace_s
        self._idle_for_s = max(grace_s, _FIRST_CLIENT_WITHIN_S)
        self._connections: dict[int, _Connection] = {}
        self._pinned = False
        self._is_stopped = False
        self._idle_since = time.monotonic()
        self._started_at = 0.0
        self._restart_at: float | None = None
        self._restart_delay_s = _RESTART_FIRST_S
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._watch_signals()

    def open(self, progress: Callable[[str], None]) -> None:
        """Start PostgreSQL, wait until it is ready, and listen."""
        self._start(progress)
        self._listener.bind(os.fspath(self._server.places.keeper_socket))
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._idle_since = time.monotonic()

    def serve(self) -> None:
        """Serve until asked to stop, or until the last client has left and the grace is over."""
        while not self._is_stopped and not self._is_abandoned():
            for key, _ in self._selector.select(self._timeout_s()):
                key.data()
            self._mind_server()

    def close(self) -> None:
        """Turn late clients away (they start another keeper), then stop PostgreSQL."""
        self._listener.close()
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._server.stop()
        log.info("PostgreSQL has stopped", extra={"event": "postgres_stopped"})

    def _watch_signals(self) -> None:
        """Wake the loop at a signal: SIGCHLD for the death of PostgreSQL, the others ask us to stop."""
        wake, woken = socket.socketpair()
        for end in (wake, woken):
            end.setblocking(False)
        signal.set_wakeup_fd(woken.fileno())
        self._woken = woken
        self._selector.register(wake, selectors.EVENT_READ, lambda: wake.recv(4096))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._ask_to_stop)

    def _ask_to_stop(self, signum: int, _frame: FrameType | None) -> None:
        log.info("stopping at signal %d", signum, extra={"event": "keeper_stopping"})
        self._is_stopped = True

    def _clients(self) -> list[_Connection]:
        return [connection for connection in self._connections.values() if connection.purpose is not None]

    def _is_abandoned(self) -> bool:
        if self._pinned or self._clients():
            return False
        return time.monotonic() - self._idle_since >= self._idle_for_s

    def _timeout_s(self) -> float:
        now = time.monotonic()
        deadlines = [now + _LOG_CHECK_EVERY_S]
        if not self._pinned and not self._clients():
            deadlines.append(self._idle_since + self._idle_for_s)
        if self._restart_at is not None:
            deadlines.append(self._restart_at)
        return max(0.0, min(deadlines) - now)

    def _start(self, progress: Callable[[str], None]) -> None:
        self._started_at = time.monotonic()
        self._server.start()
        self._server.wait_ready(progress, lambda: self._is_stopped)
        log.info("PostgreSQL is ready, pid %s", self._server.pid, extra={"event": "postgres_ready"})

    def _mind_server(self) -> None:
        """Restart PostgreSQL when it has died, slower and slower while it keeps dying."""
        self._server.limit_log()
        now = time.monotonic()
        if self._restart_at is None and not self._server.is_running():
            if now - self._started_at > _LIVED_WELL_S:
                self._restart_delay_s = _RESTART_FIRST_S
            log.error(
                "PostgreSQL died (%s); starting it again in %.1f s",
                self._server.log_tail(),
                self._restart_delay_s,
                extra={"event": "postgres_died"},
            )
            self._restart_at = now + self._restart_delay_s
            self._restart_delay_s = min(self._restart_delay_s * 2, _RESTART_LONGEST_S)
        elif self._restart_at is not None and now >= self._restart_at:
            self._restart_at = None
            try:
                self._start(log.warning)
            except (EmbeddedError, OSError) as error:
                log.error("%s", error, extra={"event": "postgres_start_failed"})  # the next round tries again
        if self._restart_at is None and self._server.is_running():
            for connection in self._clients():
                if connection.is_waiting:
                    self._welcome(connection)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            accepted, _ = self._listener.accept()
            accepted.setblocking(False)
            credentials = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            connection = _Connection(accepted, pid=struct.unpack("3i", credentials)[0])
            self._connections[accepted.fileno()] = connection
            self._selector.register(accepted, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: _Connection) -> None:
        """Read what there is; the end of the stream is how a client leaves, killed or not."""
        try:
            received = connection.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        *lines, connection.unread = (connection.unread + received).split(b"\n")
        if not received or len(connection.unread) > _MAX_REQUEST_BYTES:
            self._drop(connection)
        for line in lines:
            self._answer(connection, line)

    def _answer(self, connection: _Connection, line: bytes) -> None:
        try:
            request = json.loads(line)
            what = request["do"]
        except (ValueError, TypeError, KeyError):
            self._send(connection, {"error": "not a request"})
            return
        if what == "hello":
            connection.purpose, connection.is_waiting = str(request.get("purpose", "")), True
            if self._restart_at is None and self._server.is_ready():
                self._welcome(connection)
        elif what == "status":
            self._send(connection, self._status())
        elif what == "pin":
            self._pinned = True
            self._send(connection, {"pinned": True})
        elif what == "stop":
            self._stop_unless_used(connection)
        else:
            self._send(connection, {"error": f"unknown request {what!r}"})

    def _welcome(self, connection: _Connection) -> None:
        connection.is_waiting = False
        self._send(connection, {"url": self._url()})

    def _stop_unless_used(self, connection: _Connection) -> None:
        self._pinned = False
        self._is_stopped = self._is_stopped or not self._clients()
        self._send(connection, {"stopping": self._is_stopped, "clients": self._client_list()})

    def _client_list(self) -> list[dict[str, Any]]:
        return [{"pid": client.pid, "purpose": client.purpose} for client in self._clients()]

    def _status(self) -> dict[str, Any]:
        return {
            "keeper_pid": os.getpid(),
            "postgres_pid": self._server.pid,
            "is_ready": self._server.is_ready(),
            "pinned": self._pinned,
            "clients": self._client_list(),
            "url": self._url(),
            "version": self._server.binaries.version,
            "data": os.fspath(self._server.data),
        }

    def _url(self) -> str:
        host = quote(os.fspath(self._server.places.sockets), safe="/")
        return f"postgresql+psycopg://{USER}@/{DATABASE}?host={host}&port={PORT}"

    def _send(self, connection: _Connection, answer: dict[str, Any]) -> None:
        try:
            connection.socket.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:  # gone, or it does not read what it asked for
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        if self._connections.pop(connection.socket.fileno(), None) is None:
            return
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if connection.purpose is not None and not self._clients():
            self._idle_since, self._idle_for_s = time.monotonic(), self._grace_s
