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
    """Inside, once `stop` is set, cut the connections that wait for one answer, within `patience_s` seconds.

    The server cancels a long statement by itself, but only we can give up on one that has stalled.
    """
    statements: weakref.WeakKeyDictionary[psycopg.Connection[Any], int] = weakref.WeakKeyDictionary()
    done, lock = threading.Event(), threading.Lock()

    def remember(connection: psycopg.Connection[Any], _record: object) -> None:
        with lock:
            statements[connection] = 0

    def count(conn: sa.Connection, *_: object) -> None:
        connection: object = conn.connection.dbapi_connection
        if isinstance(connection, psycopg.Connection) and connection in statements:
            statements[connection] += 1

    def watch() -> None:
        stop.wait()
        before: dict[psycopg.Connection[Any], int] = {}
        while not done.wait(patience_s / 2):
            # One that is at another statement by now is busy, not stalled.
            with lock:
                waiting = {connection: num for connection, num in statements.items() if _is_waiting(connection)}
            for connection in [one for one, num in waiting.items() if before.get(one) == num]:
                _cut(connection)
            before = waiting

    engine.dispose()  # what is made from here on is remembered
    sa.event.listen(engine, "connect", remember)
    sa.event.listen(engine, "before_cursor_execute", count)
    # It has nothing to clear up: `stop` may never be set.
    threading.Thread(target=watch, name="stall-watch", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        sa.event.remove(engine, "connect", remember)
        sa.event.remove(engine, "before_cursor_execute", count)


def _is_waiting(connection: psycopg.Connection[Any]) -> bool:
    return connection.pgconn.transaction_status == TransactionStatus.ACTIVE


def _cut(connection: psycopg.Connection[Any]) -> None:
    log.warning("the database does not answer: cut a connection to end", extra={"event": "connection_cut"})
    # Gone meanwhile is as good.
    with (
        contextlib.suppress(OSError, psycopg.OperationalError),
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as own,
    ):
        own.shutdown(socket.SHUT_RDWR)
