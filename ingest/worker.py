"""The worker: claims repositories and has each handled by a child process, until it is told to stop.

`ingest_one` is the step: it returns whether there was work. The loop around it alone survives whatever happens.
"""

import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from ingest.alive import Alive, say_nothing, wait_alive
from ingest.config import IngestSettings
from ingest.counting import QueueGauge
from ingest.entries import SourceFailed, is_disk_full
from ingest.handling import Handler, Stopped, report_visit
from ingest.nursery import Nursery
from ingest.rescans import rescan
from ingest.retention import Caretaker
from ingest.scratch import has_room, open_scratch, repos_folder, sweep_scratch
from ingest.searching import look_after_search
from monitoring import metrics, record
from monitoring.logs import log_ids
from monitoring.progress import Progress
from schema.database import describe_outage, is_locked_out, is_outage
from schema.repositories import (
    LONGEST_DELAY_S,
    Claim,
    StaleLease,
    claim_repository,
    give_back_repository,
    is_drained,
    refuse_repository,
    retry_repository,
    set_local_path,
)

log = logging.getLogger(__name__)
_FIRST_OUTAGE_WAIT_S = 1.0
_MAX_OUTAGE_WAIT_S = 15.0
# A source that met a full disk waits this many times the delay of a failed one: others, smaller ones, go first.
_DISK_FULL_DELAYS = 10
_JOIN_S = 30.0


class DiskFull(Exception):
    """There is no space for a visit under the path that it names; the source was given back."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What every step needs."""

    engine: sa.Engine
    settings: IngestSettings
    home: Path
    stop: threading.Event
    progress: Progress | None = None
    nursery: Nursery = field(default_factory=Nursery)
    """Where the children come from; ends with the worker."""
    queue: QueueGauge = field(default_factory=QueueGauge)
    left: deque[Claim] = field(default_factory=deque)
    """Claims that an outage broke off: given back as soon as the database is there, not when their leases run out."""


def work(
    engine: sa.Engine,
    settings: IngestSettings,
    *,
    home: Path,
    stop: threading.Event,
    once: bool = False,
    progress: Progress | None = None,
    alive: Alive = say_nothing,
) -> None:
    """Handle queued repositories, several at a time, until `stop` is set; with `once` until the queue is drained.

    `alive` is called in every round, also by a worker that waits for its child.
    """
    sweep_scratch(home)
    worker = Worker(engine, settings, home, stop, progress)
    caretaker = Caretaker(engine, days=settings.retention_days, opt_out=settings.opt_out)
    threads = [
        threading.Thread(target=_loop, args=(worker, caretaker, once, alive), name=f"ingest-{number}")
        for number in range(settings.ingest_workers)
    ]
    for thread in threads:
        thread.start()
    metrics.INGEST_WORKERS.set(len(threads))
    try:
        for thread in threads:
            thread.join()
    finally:
        # An interrupt ends the join above: the threads kill their children and give their claims back.
        if any(thread.is_alive() for thread in threads):
            stop.set()
        for thread in threads:
            thread.join(_JOIN_S)
        worker.nursery.close()
        metrics.INGEST_WORKERS.set(0)


def ingest_one(worker: Worker, alive: Alive = say_nothing) -> bool:
    """Claim the next repository and handle it, or bury it; return whether there was one."""
    _give_back_left(worker)
    if not has_room(worker.home, max_bytes=worker.settings.clones_max_bytes):
        return False
    with worker.engine.begin() as conn:
        claim = claim_repository(conn, lease_s=worker.settings.lease_s)
        worker.queue.look(conn, has_changed=claim is not None)
    if claim is None:
        return False
    try:
        with log_ids(repository=claim.repository_id, source=claim.source):
            if claim.attempts > worker.settings.max_attempts:
                # Nobody was left to count those attempts: each of them took its worker along.
                _settle_failure(worker, claim, SourceFailed("worker_died", "taken over too often", is_permanent=False))
            else:
                _handle(worker, claim, alive)
    except Exception as error:
        if _passes(error):
            worker.left.append(claim)
        raise
    with worker.engine.begin() as conn:
        worker.queue.look(conn, has_changed=True)
    return True


def _loop(worker: Worker, caretaker: Caretaker, once: bool, alive: Alive) -> None:
    wait_s = 0.0
    while not wait_alive(worker.stop, wait_s, alive):
        wait_s = _step(worker, caretaker, once, alive, wait_s)
        if wait_s < 0:
            return


def _step(worker: Worker, caretaker: Caretaker, once: bool, alive: Alive, last_wait_s: float) -> float:
    """Return how long to wait before the next step; less than 0 when there will be none."""
    try:
        caretaker.look(worker.stop, alive)
        if not caretaker.opt_outs.look():
            return worker.settings.poll_interval_s
        has_worked = ingest_one(worker, alive)
        alive(database_up=True)
        if not once:
            # Who drains the queue has an end in mind.
            look_after_search(worker.engine, is_busy=has_worked, stop=worker.stop, alive=alive)
        if has_worked:
            alive(full_disk="")
            return 0.0
        if once and _is_drained(worker.engine):
            return -1.0
        if not once:
            rescan(worker.engine, worker.settings)
    except DiskFull as error:
        alive(database_up=True, full_disk=str(error))
        wait_s = _back_off(last_wait_s)
        log.warning("no space in %s; next try in %.0f s", error, wait_s, extra={"event": "disk_full"})
        return wait_s
    except Exception as error:
        record.record_loop_error("ingest")
        if _passes(error):
            words = describe_outage(error)
            alive(database_up=False, words=words)
            wait_s = _back_off(last_wait_s)
            log.warning("the database is away; next try in %.0f s: %s", wait_s, words, extra={"event": "database_away"})
            return wait_s
        log.exception("an ingest step failed", extra={"event": "ingest_step_failed"})
    return worker.settings.poll_interval_s


def _passes(error: Exception) -> bool:
    """Whether the database only keeps us waiting, which is no source's fault and costs none a try."""
    return is_outage(error) or is_locked_out(error)


def _back_off(last_wait_s: float) -> float:
    return min(_MAX_OUTAGE_WAIT_S, max(_FIRST_OUTAGE_WAIT_S, 2 * last_wait_s))


def _handle(worker: Worker, claim: Claim, alive: Alive) -> None:
    """Handle one repository; whatever happens, its row says how it ended."""
    task = worker.progress.task(f"ingest {claim.name}") if worker.progress else None

    def should_stop() -> bool:
        alive()
        return worker.stop.is_set()

    def show(num_seen: int, num_candidates: int) -> None:
        if task is not None:
            task.update(num_seen, num_candidates)

    try:
        with open_scratch(worker.home, claim) as scratch:
            handler = Handler(
                worker.engine, claim, worker.settings, nursery=worker.nursery, should_stop=should_stop, show=show
            )
            handled = handler.run(scratch)
        report_visit(claim, handled)
    except StaleLease:
        log.warning("another worker has taken %s over", claim.source, extra={"event": "claim_lost"})
    except Stopped:
        _give_back(worker, claim, "stopped")
    except Exception as error:
        if is_disk_full(error):
            _give_back(worker, claim, "disk_full", delay_s=_DISK_FULL_DELAYS * worker.settings.retry_delay_s)
            record.record_repository("disk_full")
            raise DiskFull(repos_folder(worker.home)) from error
        if isinstance(error, SourceFailed) and error.reason == "clones_full":
            _give_back(worker, claim, error.reason, delay_s=worker.settings.retry_delay_s)
            return
        if isinstance(error, SourceFailed):
            _settle_failure(worker, claim, error)
            return
        # Back into the queue before the loop's edge reports it: a repository must not wait for its lease to run out.
        if not _passes(error):
            _settle_failure(worker, claim, SourceFailed("exception", type(error).__name__, is_permanent=False))
        raise
    finally:
        if task is not None:
            task.done()


def _settle_failure(worker: Worker, claim: Claim, error: SourceFailed) -> None:
    """Refuse for good what cannot succeed; anything else is tried again later, until it was tried often enough."""
    settings = worker.settings
    delay_s = min(LONGEST_DELAY_S, settings.retry_delay_s * 2 ** (claim.attempts - 1))
    with worker.engine.begin() as conn:
        set_local_path(conn, claim, None)
        if error.is_permanent:
            refuse_repository(conn, claim, error.reason)
            outcome = "refused"
        else:
            state = retry_repository(conn, claim, error.reason, delay_s=delay_s, max_attempts=settings.max_attempts)
            outcome = "dead" if state == "dead" else "retried"
    record.record_repository(outcome)
    record.record_refused_repository(error.reason)
    log.warning(
        "%s: %s (%s): %s", claim.source, outcome, error.reason, error.detail, extra={"event": f"repository_{outcome}"}
    )


def _give_back(worker: Worker, claim: Claim, reason: str, *, delay_s: float = 0.0) -> None:
    """Queue the repository again; a stop or a full disk is not its fault and does not count towards its death."""
    with worker.engine.begin() as conn:
        set_local_path(conn, claim, None)
        give_back_repository(conn, claim, reason, delay_s=delay_s)
    log.info("%s: given back (%s)", claim.source, reason, extra={"event": "repository_given_back"})


def _give_back_left(worker: Worker) -> None:
    while worker.left:
        claim = worker.left.popleft()
        try:
            _give_back(worker, claim, "database_away")
        except StaleLease:
            log.info("another worker has %s", claim.source, extra={"event": "claim_lost"})
        except Exception:
            worker.left.append(claim)
            raise


def _is_drained(engine: sa.Engine) -> bool:
    with engine.begin() as conn:
        return is_drained(conn)
