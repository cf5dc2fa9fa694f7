"""Why an open run waits, with a checkpoint, to go on later: the hour is quiet, or another computes on its card."""

import logging
import os
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from daemon.context import Context
from daemon.supervise import Order
from daemon.windows import is_inside
from monitoring.gpu import fetch_processes

log = logging.getLogger(__name__)
# What may pass, at a look a second and an order a second, until the child hears of another process and is gone.
_SLOWNESS_S = 3.0


def reason_to_wait(ctx: Context, now: datetime) -> tuple[str, dict[str, Any]] | None:
    """Return why no child may start at this time, and what that rests on; None when one may."""
    local = now.astimezone(ZoneInfo(ctx.settings.time_zone))
    if is_inside(ctx.settings.quiet_hours, local):
        return "quiet_hours", {"local_time": f"{local:%a %Y-%m-%d %H:%M %Z}"}
    if others := _others_on_card(ctx):
        return "card_in_use", {"device": ctx.device.name, "processes": _say(others)}
    return None


def _others_on_card(ctx: Context) -> set[int]:
    """Return the processes that compute on our card and are not of this daemon; none where courtesy is off."""
    card = ctx.device.card
    if ctx.settings.courtesy_s is None or card is None:
        return set()
    return {pid for pid in fetch_processes(card) if _is_foreign(pid)}


@dataclass(slots=True)
class Courtesy:
    """Says what the child is to do for the sake of others; looks in a thread, as a driver may never answer."""

    ctx: Context
    _since: float | None = None  # monotonic: when another was first seen
    _looker: threading.Thread | None = None

    def order(self) -> Order:
        """Return "stop" in a quiet hour or once another was seen, "kill" when that one can wait no longer."""
        settings = self.ctx.settings
        if is_inside(settings.quiet_hours, datetime.now(ZoneInfo(settings.time_zone))):
            return "stop"
        limit_s = settings.courtesy_s
        if limit_s is None:
            return "go_on"
        if self._since is not None:
            return "kill" if time.monotonic() - self._since > limit_s - _SLOWNESS_S else "stop"
        if self._looker is None or not self._looker.is_alive():
            self._looker = threading.Thread(target=self._look, name="card", daemon=True)
            self._looker.start()
        return "go_on"

    def _look(self) -> None:
        if others := _others_on_card(self.ctx):
            self._since = time.monotonic()
            said = _say(others)
            log.info("the card is left to process %s", said, extra={"event": "card_yielded", "processes": said})


def _say(processes: set[int]) -> str:
    return ", ".join(map(str, sorted(processes)))


def _is_foreign(pid: int) -> bool:
    """Say whether a process descends from another than us. One that is not to be seen is taken for ours."""
    while pid > 1:
        if pid == os.getpid():
            return False
        try:
            status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            _warn_of_unseen()
            return False
        pid = int(status.rpartition(")")[2].split()[1])  # its parent; the name before may hold anything
    return True


@cache
def _warn_of_unseen() -> None:
    log.warning(
        "a process on the card is not to be seen from here: it has ended, or it is outside of this container, which "
        "then needs the machine's process ids (`pid: host`) for CODELUPE_COURTESY_S to work",
        extra={"event": "card_process_unseen"},
    )
