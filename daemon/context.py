"""What a tick works with. Time, stop and randomness come in from outside."""

import threading
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine

from daemon.config import DaemonSettings
from daemon.device import Device
from daemon.leadership import Leadership
from daemon.live import Live
from daemon.paths import LinePaths
from schema.leases import HeldLease


@dataclass(slots=True)
class Context:
    """One daemon's parts."""

    engine: Engine
    settings: DaemonSettings
    """Those in force: what was configured, and over it what was changed at run time (daemon/adjust.py)."""
    profile: str
    paths: LinePaths
    device: Device
    leadership: Leadership
    stop: threading.Event
    live: Live
    configured: DaemonSettings = field(init=False)
    """What the daemon was started with."""
    changed: dict[str, Any] = field(init=False, default_factory=dict)
    """What was changed since, as JSON has it."""

    def __post_init__(self) -> None:
        self.configured = self.settings

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
