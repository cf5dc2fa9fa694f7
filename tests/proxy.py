"""A TCP proxy in front of a real PostgreSQL: it refuses, cuts, stalls, and cuts at the COMMIT that it is told of."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Self

from sqlalchemy import make_url

_POLL_S = 0.02


class Proxy:
    """`url` leads to the database through it; statements of a transaction are known by a part of their text."""

    def __init__(self, database_url: str) -> None:
        self._behind = make_url(database_url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._links: list[_Link] = []
        self._is_closed = False
        self.refuses = False
        self.flows = threading.Event()
        self.flows.set()
        self.cut_of: str | None = None
        self.cut_answer = False
        self.was_cut = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="proxy")
        self._thread.start()

    @property
    def url(self) -> str:
        """The database's URL, with a password that nobody may ever print."""
        port = self._listener.getsockname()[1]
        url = self._behind.set(host="127.0.0.1", port=port, password="hidden", query={"sslmode": "disable"})
        return url.render_as_string(hide_password=False)

    def go_away(self) -> None:
        """Cut every connection and take nobody in any more."""
        self.refuses = True
        self.cut()

    def cut(self) -> None:
        """Cut every connection; new ones are welcome."""
        for link in list(self._links):
            link.cut()

    def stall(self) -> None:
        """Pass nothing on, in either direction."""
        self.flows.clear()

    def come_back(self) -> None:
        """Work again as if nothing had been."""
        self.refuses = False
        self.flows.set()

    def cut_at_commit(self, of: str, *, done: bool) -> None:
        """Cut at the COMMIT of the next transaction with a statement that contains `of`: before it, or once it is done.

        In both cases the client sees the same: no answer.
        """
        self.was_cut.clear()
        self.cut_of, self.cut_answer = of, done

    def close(self) -> None:
        """Leave nothing open."""
        self._is_closed = True
        self.flows.set()
        with socket.create_connection(self._listener.getsockname()):
            pass
        self._thread.join()
        self._listener.close()
        for link in self._links:
            link.cut()
            link.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._is_closed:
                client.close()
                return
            if self.refuses:
                client.close()
                continue
            self._links.append(_Link(self, client, self._connect()))
            if self.refuses:  # since a moment ago: `go_away` may not have seen this one
                self._links[-1].cut()

    def _connect(self) -> socket.socket:
        host = self._behind.query.get("host", self._behind.host)
        port = int(self._behind.query.get("port", self._behind.port or 5432))
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server


class _Link:
    """One connection: a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._is_cut = self._swallows = False
        self._transaction = b""
        self._threads = [
            threading.Thread(target=self._pump, args=(client, self._messages(), server), name="proxy-up"),
            threading.Thread(target=self._pump, args=(server, _chunks(server), client), name="proxy-down"),
        ]
        for thread in self._threads:
            thread.start()

    def cut(self) -> None:
        self._is_cut = True
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        self._client.close()
        self._server.close()

    def _pump(self, source: socket.socket, messages: Iterator[bytes], sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for message in messages:
                while not self._proxy.flows.wait(_POLL_S):
                    if self._is_cut:
                        return
                if source is self._server and self._swallows:
                    self._proxy.was_cut.set()
                    break
                if source is self._client and not self._passes(message):
                    break
                sink.sendall(message)
        self.cut()

    def _messages(self) -> Iterator[bytes]:
        """Yield the client's messages whole; the first one has no type."""
        unread, head = b"", 0
        for chunk in _chunks(self._client):
            unread += chunk
            while len(unread) >= head + 4:
                length = head + struct.unpack_from("!i", unread, head)[0]
                if len(unread) < length:
                    break
                yield unread[:length]
                unread, head = unread[length:], 1

    def _passes(self, message: bytes) -> bool:
        """Follow the transaction; return whether the message may go on."""
        kind, text = message[:1], message[5:]
        if kind not in (b"Q", b"P"):
            return True
        if text.startswith(b"BEGIN"):
            self._transaction = b""
        self._transaction += text
        of = self._proxy.cut_of
        if of is None or not text.startswith(b"COMMIT") or of.encode() not in self._transaction:
            return True
        self._proxy.cut_of = None
        self._swallows = self._proxy.cut_answer
        if not self._swallows:
            self._proxy.was_cut.set()
        return self._swallows


def _chunks(source: socket.socket) -> Iterator[bytes]:
    while chunk := source.recv(1 << 16):
        yield chunk
