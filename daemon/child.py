"""What the daemon does while its child works: watch the lease, the operator's wishes and the stop; pass events on."""

import time
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError

from daemon.context import Led
from daemon.job import Event
from daemon.supervise import Order
from schema.database import is_outage
from schema.lines import fetch_line
from schema.runs import Run

_LOOK_S = 2.0


@dataclass(slots=True)
class Supervised:
    """Answers the supervisor for one run."""

    led: Led
    run: Run
    lease_lost: bool = False
    cancelled: bool = False
    _paused: bool = False
    _looked_at: float = field(default=0.0)

    def obey(self) -> Order:
        """Return what the child is to do now."""
        if not self.led.ctx.leadership.holds(self.led.lease):
            # Another leads: it will resume this run, and our writes would be refused by the fence.
            self.lease_lost = True
            return "kill"
        if time.monotonic() - self._looked_at >= _LOOK_S:
            self._look()
        stops = self.led.ctx.stop.is_set() or self._paused or self.cancelled
        return "stop" if stops else "go_on"

    def on_event(self, event: Event) -> None:
        """Show the event."""
        self.led.ctx.live.on_event(self.run, event)

    def _look(self) -> None:
        """Ask the database what the operator wants; an outage changes nothing, the child goes on."""
        self._looked_at = time.monotonic()
        try:
            with self.led.ctx.engine.connect() as conn:
                line = fetch_line(conn, self.led.ctx.settings.line)
        except DBAPIError as error:
            if not is_outage(error):
                raise
            self.led.ctx.live.database_away(str(error.orig))
            return
        if line is not None:
            self._paused, self.cancelled = line.paused, line.request == "cancel"
