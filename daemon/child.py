"""What the daemon does while its child works: watch the lease, the operator's wishes and the stop; pass events on."""

import time
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from daemon.context import Led
from daemon.job import Event
from daemon.supervise import Order
from schema.database import is_outage
from schema.embedded import EmbeddedError
from schema.leases import HeldLease
from schema.lines import fetch_line
from schema.runs import Run, advance_run

_LOOK_S = 2.0


@dataclass(slots=True)
class Supervised:
    """Answers the supervisor for one run."""

    led: Led
    run: Run
    device_lease: HeldLease
    lease_lost: bool = False
    _asked_to_stop: bool = False
    _looked_at: float = field(default=0.0)

    def obey(self) -> Order:
        """Return what the child is to do now; called every second, it is the tick's sign of life."""
        ctx = self.led.ctx
        ctx.live.alive()
        if not (ctx.leadership.holds(self.led.lease) and ctx.leadership.holds(self.device_lease)):
            # Another leads: it will resume this run, and our writes would be refused by the fence.
            self.lease_lost = True
            return "kill"
        if time.monotonic() - self._looked_at >= _LOOK_S:
            self._look()
        return "stop" if ctx.stop.is_set() or self._asked_to_stop else "go_on"

    def on_event(self, event: Event) -> None:
        """Show the event; a checkpoint is progress, after which interruptions are counted anew."""
        self.led.ctx.live.on_event(self.run, event)
        if event.get("event") == "checkpoint" and self.run.attempt:
            self._reset_attempts()

    def _reset_attempts(self) -> None:
        """Set the run's count of attempts back; an outage changes nothing, the next checkpoint comes."""
        try:
            with self.led.ctx.engine.begin() as conn:
                self.run = advance_run(conn, self.run, lease=self.led.lease, to=self.run.state, attempt=0)
        except (SQLAlchemyError, EmbeddedError) as error:
            if not is_outage(error):
                raise
            self.led.ctx.live.database_away(str(error))

    def _look(self) -> None:
        """Ask the database what the operator wants; an outage changes nothing, the child goes on."""
        self._looked_at = time.monotonic()
        try:
            with self.led.ctx.engine.connect() as conn:
                line = fetch_line(conn, self.led.ctx.settings.line)
        except (SQLAlchemyError, EmbeddedError) as error:
            if not is_outage(error):
                raise
            self.led.ctx.live.database_away(str(error))
            return
        self.led.ctx.live.database_back()
        if line is not None:
            self._asked_to_stop = line.paused or line.request == "cancel"
