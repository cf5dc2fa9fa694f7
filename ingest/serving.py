"""What ingest shows over HTTP, from memory alone, and ingest as a companion of the daemon."""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from ingest.config import Settings
from ingest.status import fetch_status
from ingest.worker import work
from monitoring import record
from monitoring.health import Facts, assess, ready
from monitoring.progress import Progress
from monitoring.server import create_app, serve

log = logging.getLogger(__name__)
# Longer than a statement may take, and than it takes to notice that the database's machine has vanished.
_MAX_SILENCE_S = 90.0
_MAX_STATUS_AGE_S = 2.0
# Before ingest beside the daemon begins again, when its folders could not be made.
_AGAIN_S = 30.0


class Signs:
    """What the worker has shown of itself and of the database, for who asks over HTTP: no statement for an answer."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._last: float | None = None
        self._is_up, self._words = True, ""
        self._full_disk = ""
        self._lock = threading.Lock()
        self._shown: dict[str, Any] = {}
        self._shown_at = -_MAX_STATUS_AGE_S

    def alive(self, *, database_up: bool | None = None, words: str = "", full_disk: str | None = None) -> None:
        """Take a sign of life, how the last statement went, and where there is no space."""
        self._last = time.monotonic()
        if full_disk is not None:
            self._full_disk = full_disk
        if database_up is not None:
            self._is_up, self._words = database_up, words
            record.record_database(up=database_up)

    def away(self, words: str) -> None:
        """Take it that the database is away: what `outlast` calls."""
        self.alive(database_up=False, words=words)

    def health(self) -> dict[str, Any]:
        """Return the answer of /health."""
        details = {"details": {"database": self._words}} if self._words else {}
        return {**assess(self.facts()).to_json(), **details}

    def facts(self) -> Facts:
        """Return what health is judged by."""
        # The start waits for the database as long as it takes; only the loop can be stuck.
        silent_s = 0.0 if self._last is None else time.monotonic() - self._last
        return Facts(
            database_up=self._is_up,
            silent_s=silent_s,
            max_silent_s=_MAX_SILENCE_S,
            trains=False,
            started=self._last is not None,
            full_disk=self._full_disk,
        )

    def show_status(self) -> dict[str, Any]:
        """Return the queue's figures: those of a moment ago, and the last ones while the database is away."""
        is_old = time.monotonic() - self._shown_at >= _MAX_STATUS_AGE_S
        # Whoever comes while another asks is answered at once: a stalled database must not take all of the threads.
        if self._is_up and is_old and self._lock.acquire(blocking=False):
            try:
                with contextlib.suppress(sa.exc.SQLAlchemyError), self._engine.begin() as conn:
                    self._shown = {"ingest": json.loads(json.dumps(fetch_status(conn), default=str))}
                self._shown_at = time.monotonic()
            finally:
                self._lock.release()
        return self._shown


@contextmanager
def serve_ingest(settings: Settings, engine: sa.Engine, *, enabled: bool = True) -> Iterator[Signs]:
    """Serve /health, /ready, /metrics and /status of ingest; yield what takes the signs of life."""
    signs = Signs(engine)
    if not enabled:
        yield signs
        return
    app = create_app(health=signs.health, ready=lambda: ready(signs.facts()), status=signs.show_status)
    monitoring = settings.monitoring
    server = serve(app, monitoring.host, monitoring.ingest_port, port_setting="CODELUPE_INGEST_PORT")
    try:
        yield signs
    finally:
        server.close()


@contextmanager
def ingest_beside(settings: Settings, engine: sa.Engine, progress: Progress) -> Iterator[None]:
    """Run the ingest workers beside what is done inside, and end them after it."""
    stop = threading.Event()

    def ingest() -> None:
        while not stop.is_set():
            try:
                work(engine, settings.ingest, home=settings.home, stop=stop, progress=progress, alive=signs.alive)
            except Exception:
                record.record_loop_error("ingest")
                log.exception("ingest broke off and begins again", extra={"event": "ingest_broke_off"})
                stop.wait(_AGAIN_S)

    with serve_ingest(settings, engine) as signs:
        thread = threading.Thread(target=ingest, name="ingest")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            log.info("ingest has stopped", extra={"event": "ingest_stopped"})
