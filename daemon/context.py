"""What a tick works with. Time, stop and randomness come in from outside."""

import threading
from dataclasses import dataclass

from sqlalchemy import Engine

from daemon.config import DaemonSettings
from daemon.device import Device
from daemon.leadership import Leadership
from daemon.live import Live
from daemon.paths import LinePaths
from schema.leases import HeldLease


@dataclass(frozen=True, slots=True)
class Context:
    """One daemon's parts."""

    engine: Engine
    settings: DaemonSettings
    profile: str
    paths: LinePaths
    device: Device
    leadership: Leadership
    stop: threading.Event
    live: Live

    @property
    def line_lease_name(self) -> str:
        """Name of the lease on this daemon's line."""
        return f"line:{self.settings.line}"


@dataclass(frozen=True, slots=True)
class Led:
    """A context while this process leads its line: carries the fence every write is checked against."""

    ctx: Context
    lease: HeldLease
    line_id: int
