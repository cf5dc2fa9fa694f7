"""The leases this process holds: who may work on a line or a device, kept alive by a heartbeat (I5)."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine

from schema.leases import NOBODY, HeldLease, acquire_lease, fetch_lease, release_lease, renew_lease, take_over_lease

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Leadership:
    """Acquires, renews and gives back leases under one holder name. Safe to use from two threads."""

    engine: Engine
    holder: str
    length_s: float
    clock: Callable[[], float] = time.monotonic
    _held: dict[str, HeldLease] = field(default_factory=dict)
    _seen: dict[str, tuple[tuple[Any, ...], float, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, name: str) -> HeldLease | None:
        """Return the lease `name`, ours already or newly taken; None while another holds it.

        Another's lease is taken over only after it was seen here, unrenewed, for its full length with the database
        reachable: after an outage the leader gets its chance to renew first, and a database whose clock jumps neither
        takes the lease from a leader that lives nor keeps it for one that died.
        """
        with self._lock, self._reachable():
            with self.engine.begin() as conn:
                lease = self._take(conn, name)
            # Only what is committed is ours.
            if lease is None:
                self._held.pop(name, None)
            else:
                self._held[name] = lease
            return lease

    def holds(self, lease: HeldLease) -> bool:
        """Whether `lease` is, as far as this process knows, still ours. Never waits for the database."""
        return self._held.get(lease.name) == lease

    def renew(self) -> None:
        """Renew every lease; forget, loudly, one that another has taken. Look at those that others hold."""
        with self._lock, self._reachable(), self.engine.begin() as conn:
            for lease in list(self._held.values()):
                if not renew_lease(conn, lease, length_s=self.length_s):
                    del self._held[lease.name]
                    log.error("lost the lease %s", lease.name, extra={"event": "lease_lost", "lease": lease.name})
            for name in list(self._seen):
                self._look(conn, name)

    def watch(self, name: str) -> None:
        """Begin to look at a lease that may have to be taken over later."""
        with self._lock, self._reachable(), self.engine.begin() as conn:
            self._look(conn, name)

    def outwait(self, names: Collection[str], stop: threading.Event) -> None:
        """Look at leases of others that have run out until each may be taken over, or lives: for one that ends soon.

        A process that lives for one tick has seen nothing before; without this a dead leader would be its leader for
        ever.
        """
        while not stop.is_set():
            with self._lock, self._reachable(), self.engine.begin() as conn:
                waiting_for = [name for name in names if self._may_be_dead(conn, name)]
            if not waiting_for:
                return
            stop.wait(self.length_s / 8)

    def give_back(self, name: str | None = None) -> None:
        """Release one lease, or all; what cannot be told to the database runs out by itself."""
        with self._lock:
            leases = [self._held.pop(held) for held in list(self._held) if name in (None, held)]
            with self.engine.begin() as conn:
                for lease in leases:
                    release_lease(conn, lease)

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Renew in the background while inside, then give everything back: for a process without a clock of its own."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self.length_s / 4):
                try:
                    self.renew()
                except sa.exc.SQLAlchemyError as error:
                    log.warning("could not renew: %s", error, extra={"event": "renewal_failed"})

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.give_back()

    def _take(self, conn: sa.Connection, name: str) -> HeldLease | None:
        current = fetch_lease(conn, name)
        if current is None or current["holder"] in (self.holder, NOBODY):
            return acquire_lease(conn, name, self.holder, length_s=self.length_s)
        if not self._is_abandoned(name, current):
            return None
        return take_over_lease(conn, name, self.holder, seen=current, length_s=self.length_s)

    def _may_be_dead(self, conn: sa.Connection, name: str) -> bool:
        """Whether `name` is another's and has run out, but was not yet seen so for long enough."""
        current = fetch_lease(conn, name)
        if current is None or current["holder"] in (self.holder, NOBODY) or not current["expired"]:
            return False
        return not self._is_abandoned(name, current)

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        """Forget what was seen of others' leases when the database cannot be asked: the leader may renew first."""
        try:
            yield
        except sa.exc.SQLAlchemyError:
            self._seen.clear()
            raise

    def _look(self, conn: sa.Connection, name: str) -> None:
        current = fetch_lease(conn, name)
        if current is not None and current["holder"] not in (self.holder, NOBODY):
            self._is_abandoned(name, current)

    def _is_abandoned(self, name: str, current: dict[str, Any]) -> bool:
        sight = (current["holder"], current["fence"], current["until"])
        now = self.clock()
        seen, since, last = self._seen.get(name, (None, now, now))
        # A gap between two looks is a database that stalled, or a sleep of ours: the leader may renew first.
        if seen != sight or now - last > self.length_s / 2:
            since = now
        self._seen[name] = (sight, since, now)
        return now - since >= self.length_s
