"""What the daemon does while its child works: watch the lease, the operator's wishes and the stop; pass events on."""

import threading
import time
from dataclasses import dataclass, field, replace

from sqlalchemy.exc import OperationalError

from daemon.adjust import take_changes
from daemon.context import Led
from daemon.courtesy import Courtesy
from daemon.job import Event
from daemon.supervise import Order
from daemon.trace import start_thread
from schema.database import describe_outage, is_outage
from schema.jobs import is_cancel_requested
from schema.leases import HeldLease
from schema.lines import fetch_line
from schema.runs import Run, advance_run

_LOOK_S = 2.0
# A look takes milliseconds: a database that has not answered by then is away.
_STALLED_S = 10.0


@dataclass(slots=True)
class Supervised:
    """Answers the supervisor for one run."""

    led: Led
    run: Run
    device_lease: HeldLease
    lease_lost: bool = False
    _asked_to_stop: bool = False
    _has_progressed: bool = False
    _looked_at: float = field(default=0.0)
    _looker: threading.Thread | None = None
    _error: Exception | None = None
    _courtesy: Courtesy = field(init=False)

    def __post_init__(self) -> None:
        self._courtesy = Courtesy(self.led.ctx)

    def obey(self) -> Order:
        """Return what the child is to do now; called every second, it is the tick's sign of life."""
        ctx = self.led.ctx
        ctx.live.alive()
        if not (ctx.leadership.holds(self.led.lease) and ctx.leadership.holds(self.device_lease)):
            # Another leads: it will resume this run, and our writes would be refused by the fence.
            self.lease_lost = True
            return "kill"
        if self._error is not None:
            raise self._error
        self._look_beside()
        return "stop" if ctx.stop.is_set() or self._asked_to_stop else self._courtesy.order()

    def on_event(self, event: Event) -> None:
        """Show the event; a checkpoint is progress, after which interruptions are counted anew."""
        self.led.ctx.live.on_event(self.run, event)
        if event.get("event") == "checkpoint" and self.run.attempt:
            self.run = replace(self.run, attempt=0)
            self._has_progressed = True

    def _look_beside(self) -> None:
        """Look in a thread of its own: a database that stalls must not keep a stop from the child."""
        silent_s = time.monotonic() - self._looked_at
        if self._looker is not None and self._looker.is_alive():
            if silent_s >= _STALLED_S:
                self.led.ctx.live.database_away(f"no answer for {silent_s:.0f} s")
        elif silent_s >= _LOOK_S:
            self._looked_at = time.monotonic()
            self._looker = start_thread("look", self._look)

    def _look(self) -> None:
        """Tell the database of progress, and ask it what the operator wants; an outage changes nothing."""
        ctx, has_progressed = self.led.ctx, self._has_progressed
        try:
            with ctx.engine.begin() as conn:
                if has_progressed:
                    advance_run(conn, self.run, lease=self.led.lease, to=self.run.state, attempt=0)
                line = fetch_line(conn, ctx.settings.line)
                is_cancelled = is_cancel_requested(conn, self.run.id)
                take_changes(ctx, conn, self.led.line_id)  # of the hours, and of courtesy
        except Exception as error:  # noqa: BLE001 -- the thread's edge: `obey` raises it
            # A look that waited too long for a lock, or for its answer, is not worth the training either.
            if is_outage(error) or isinstance(error, OperationalError):
                ctx.live.database_away(describe_outage(error))
            else:
                self._error = error
            return
        if has_progressed:
            self._has_progressed = False
        ctx.live.database_back()
        if line is not None:
            self._asked_to_stop = line.paused or is_cancelled
