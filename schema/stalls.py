"""A database that is there and says nothing: it must not keep a process from ending."""

import contextlib
import logging
import os
import socket
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus

log = logging.getLogger(__name__)


@contextlib.contextmanager
def cut_when_stopped(engine: sa.Engine, stop: threading.Event, *, patience_s: float = 5.0) -> Iterator[None]:
    """Inside, once `stop` is set, cut every `patience_s` seconds the connections that wait for an answer.

    The server cancels a long statement by itself, but only we can give up on one that has stalled.
    """
    connections: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()
    done = threading.Event()

    def remember(connection: psycopg.Connection[Any], _record: object) -> None:
        connections.add(connection)

    def watch() -> None:
        stop.wait()
        while not done.wait(patience_s):
            for connection in list(connections):
                _cut_if_waiting(connection)

    engine.dispose()  # what is made from here on is remembered
    sa.event.listen(engine, "connect", remember)
    # It has nothing to clear up: `stop` may never be set.
    threading.Thread(target=watch, name="stall-watch", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        sa.event.remove(engine, "connect", remember)


def _cut_if_waiting(connection: psycopg.Connection[Any]) -> None:
    if connection.pgconn.transaction_status != TransactionStatus.ACTIVE:
        return
    log.warning("the database does not answer: cut a connection to end", extra={"event": "connection_cut"})
    # Gone meanwhile is as good.
    with (
        contextlib.suppress(OSError, psycopg.OperationalError),
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as own,
    ):
        own.shutdown(socket.SHUT_RDWR)
