"""The edge around the tick, the heartbeat and the audit: what goes wrong is told, and tried again at its time."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

from sqlalchemy import QueuePool

from daemon.clock import Alarm
from daemon.context import Context
from daemon.reconcile import verify_current
from daemon.tick import tick
from daemon.trace import new_tick
from daemon.turns import LOOK_S
from monitoring import record
from monitoring.database import record_database_activity, record_database_sizes, record_pool, record_tables
from monitoring.logs import log_ids
from schema.audit import audit
from schema.database import describe_outage, is_outage
from schema.evaluations import fetch_last_evaluation
from schema.lines import fetch_line
from schema.listings import prune_calls
from schema.repositories import is_drained
from schema.runs import Run
from schema.sizes import fetch_sizes

log = logging.getLogger(__name__)
_MOST_ERRORS = 3
_FINAL_WAITS = ("too_few_rows", "too_few_held_out", "does_not_fit")
T = TypeVar("T")


class ExitCode(IntEnum):
    """How `up --once` and `daemon run` end; 2 is click's own, for usage and configuration, 4 the front door's."""

    OK = 0
    FAILED = 1
    NOT_PROMOTED = 3


@dataclass(slots=True)
class Loop:
    """The edge of the tick: errors are logged, counted and retried at the next interval, never at once."""

    ctx: Context
    once: bool
    exit_code: ExitCode
    _num_errors: int = 0
    _drained_before: bool = False
    _audited: Run | None = None
    alarm: Alarm = field(default_factory=Alarm)
    _counted: dict[str, int] | None = None

    def run(self) -> None:
        """Tick as long as there is work, and often while another has the device: our turn may come any moment."""
        self.alarm.rung.clear()
        while not self.ctx.stop.is_set() and (self.step() or self._is_called() or self._waits_for_device()):
            pass

    def _is_called(self) -> bool:
        """Say whether the alarm has rung since the last look."""
        has_rung = self.alarm.rung.is_set()
        self.alarm.rung.clear()
        return has_rung

    def _waits_for_device(self) -> bool:
        """Wait a little if it is the device that the line waits for; return whether it was."""
        if self.ctx.live.decision not in (("wait", "device_busy"), ("wait", "card_in_use")):
            return False
        self.ctx.stop.wait(LOOK_S)
        return True

    def step(self) -> bool:
        """Tick once; return whether to tick again at once."""
        interval_s = self.ctx.settings.check_interval_s
        with new_tick(self.ctx.settings.line):
            worked = self._step()
        if self.ctx.settings.check_interval_s != interval_s:
            self.alarm.retime(self.ctx.settings.check_interval_s)
        return worked

    def _step(self) -> bool:
        started = time.monotonic()
        worked = self._guard(lambda: tick(self.ctx))
        outcome = "failed" if worked is None else "worked" if worked else "idle" if self.ctx.live.leading else "busy"
        if worked is not None:
            self.ctx.live.database_back()
            self.ctx.live.step_worked()
            self._num_errors = 0
        record.record_tick(outcome, time.monotonic() - started)
        self.ctx.live.alive()
        if self.ctx.live.finished is not self._audited:
            self._audited = self.ctx.live.finished
            self.audit()
        self._guard(self._end_once)
        return bool(worked)

    def heartbeat(self) -> None:
        """Renew the leases; an outage is waited out, the database's clock decides whether we come back in time."""
        self._guard(self._renew)

    def _renew(self) -> None:
        self.ctx.leadership.renew()
        self.ctx.live.database_back()

    def audit(self) -> None:
        """Recompute the row accounting into the metrics (I1), and look whether the current version is still whole."""
        self._guard(self._audit)

    def tidy(self) -> None:
        """Remove the records of API calls that are beyond what is kept."""
        self._guard(self._tidy)

    def _tidy(self) -> None:
        settings = self.ctx.settings
        with self.ctx.engine.begin() as conn:
            num = prune_calls(conn, days=settings.api_log_days, rows=settings.api_log_rows)
        if num:
            log.info("%d records of API calls removed", num, extra={"event": "api_calls_pruned", "rows": num})

    def leave(self) -> None:
        """Give the leases back, so that a successor need not wait for them."""
        self._guard(self.ctx.leadership.give_back)

    def _audit(self) -> None:
        with self.ctx.engine.connect() as conn:
            report = audit(conn)
            line = fetch_line(conn, self.ctx.settings.line)
            evaluation = None if line is None else fetch_last_evaluation(conn, line.id)
        self.ctx.live.audited(report.by_state, report.rows_unaccounted)
        if evaluation is not None:
            self.ctx.live.evaluated(evaluation.rows, evaluation.gain)
        if line is not None:
            verify_current(self.ctx, line)

    def measure(self) -> None:
        """Look at the size and the activity of the database, for the metrics."""
        self._guard(self._measure)

    def _measure(self) -> None:
        pool = self.ctx.engine.pool
        if isinstance(pool, QueuePool):
            record_pool(pool.checkedout(), pool.size())
        with self.ctx.engine.connect() as conn:
            sizes = fetch_sizes(conn)
        record_tables(sizes.rows, sizes.num_bytes, sizes.index_bytes)
        record_database_sizes(
            sizes.database_bytes, sizes.connections, sizes.connections_max, sizes.oldest_transaction_s
        )
        record_database_activity(self._counted or sizes.counted, sizes.counted)
        self._counted = sizes.counted

    def _guard(self, work: Callable[[], T]) -> T | None:
        """Do the work; an error is logged and counted, and answered with None."""
        with log_ids(line=self.ctx.settings.line):
            try:
                return work()
            except Exception as error:  # noqa: BLE001 -- the loop's edge
                self._take_error(error)
                return None

    def _take_error(self, error: Exception) -> None:
        if is_outage(error):
            words = describe_outage(error)
            self.ctx.live.database_away(words)
            log.warning("the database is away; waiting for it: %s", words, extra={"event": "database_away"})
            return
        self._num_errors += 1
        self.ctx.live.step_failed(error)
        record.record_loop_error("tick")
        log.error("a step failed and is tried again", exc_info=error, extra={"event": "tick_failed"})

    def _end_once(self) -> None:
        """With `once`, stop when the first round is over or nothing can come any more."""
        if not self.once:
            return
        live = self.ctx.live
        if live.finished is not None and (live.finished.kind != "base" or live.finished.state == "failed"):
            ended = {"promoted": ExitCode.OK, "failed": ExitCode.FAILED}
            self._stop(ended.get(live.finished.state, ExitCode.NOT_PROMOTED))
        elif self._num_errors >= _MOST_ERRORS:
            self._stop(ExitCode.FAILED)
        elif live.decision is not None and live.decision[0] == "wait" and live.decision[1] in _FINAL_WAITS:
            self._end_idle(live.decision[1])

    def _end_idle(self, reason: str) -> None:
        with self.ctx.engine.connect() as conn:
            drained = is_drained(conn)
        # The rows were counted before the queue was seen empty: only a second look of the same kind is final.
        if drained and self._drained_before:
            log.info("nothing new to train on: %s", reason, extra={"event": "nothing_new", "reason": reason})
            self._stop(ExitCode.OK if reason == "too_few_rows" else ExitCode.FAILED)
        self._drained_before = drained

    def _stop(self, code: ExitCode) -> None:
        self.exit_code = code
        self.ctx.stop.set()
