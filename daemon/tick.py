"""One tick: take the lead, advance the open run by one state, or count, decide and claim."""

import logging
import uuid
from dataclasses import replace

from daemon import policy
from daemon.adjust import say_changes, take_changes
from daemon.context import Context, Led
from daemon.facts import gather_facts, limits_of
from daemon.failures import describe_failure, skip_probe
from daemon.fitting import find_misfit
from daemon.policy import Decision
from daemon.reconcile import reconcile, show_line
from daemon.rounds import advance, cancel, sweep_jobs, wait
from daemon.shapes import find_shape
from monitoring.logs import log_ids
from schema import failpoints
from schema.decisions import record_decision
from schema.jobs import answer_jobs
from schema.leases import check_fence
from schema.lines import Line, fetch_line
from schema.runs import (
    Run,
    claim_run,
    fetch_last_failure,
    fetch_open_run,
    fetch_run,
)
from schema.tables import CLOSED_STATES

log = logging.getLogger(__name__)


def tick(ctx: Context) -> bool:
    """Do one step of work; return whether there was any, so that the caller ticks again at once."""
    lease = ctx.leadership.take(ctx.line_lease_name)
    with ctx.engine.connect() as conn:
        line = fetch_line(conn, ctx.settings.line)
        if line is None:
            raise RuntimeError(f"line {ctx.settings.line!r} is not open: open_line runs at the daemon's start")
        take_changes(ctx, conn, line.id)
    if lease is None:
        return _stand_by(ctx, line)
    led = Led(ctx, lease, line.id)
    with ctx.engine.connect() as conn:
        run = fetch_open_run(conn, line.id)
    if ctx.live.leads(lease.fence):
        sweep_jobs(led, run)
        _recall_failure(led)
    _see_end(led, run)
    reconcile(led)
    if run is None:
        return _start_run(led, line)
    if run.cancel_requested_at is not None:
        with log_ids(run=run.number):
            cancel(led, run)
        return True
    if line.paused:
        wait(led, "paused", {"run": run.number})
        return False
    with log_ids(run=run.number, attempt=run.attempt, decided_by=run.decided_by):
        return advance(led, run)


def _recall_failure(led: Led) -> None:
    """Show how the last run failed, if it did: a process that was restarted does not know."""
    with led.ctx.engine.connect() as conn:
        failed = fetch_last_failure(conn, led.line_id)
    led.ctx.live.last_failure = None if failed is None else describe_failure(failed)


def _see_end(led: Led, open_run: Run | None) -> None:
    """Take note of the end of the run we followed, when the answer to the COMMIT that closed it never came."""
    live = led.ctx.live
    if live.run is None or (open_run is not None and open_run.uuid == live.run.uuid):
        return
    with led.ctx.engine.connect() as conn:
        ended = fetch_run(conn, uuid=live.run.uuid)
    if ended is not None and ended.state in CLOSED_STATES:
        live.finished_run(ended, describe_failure(ended) if ended.state == "failed" else ended.reason or "")
        sweep_jobs(led, open_run)


def _stand_by(ctx: Context, line: Line) -> bool:
    """Say that another daemon leads; show what it serves."""
    ctx.live.leads(None)
    show_line(ctx, line)
    # A leader that died in the middle of a run left both leases: they grow old together.
    ctx.leadership.watch(ctx.device.lease)
    with ctx.engine.begin() as conn:
        record_decision(conn, line.id, verdict="wait", reason="busy", inputs={"daemon": ctx.leadership.holder})
    ctx.live.decided("wait", "busy")
    return False


def _start_run(led: Led, line: Line) -> bool:
    ctx, settings = led.ctx, led.ctx.settings
    with ctx.engine.begin() as conn:
        facts = replace(gather_facts(conn, line, settings), misfit=_find_misfit(ctx))
        decision = policy.decide(facts)
        inputs = facts.as_inputs() | ({"missing": decision.missing} if decision.missing else {})
        inputs |= {"changed_at_run_time": say_changes(ctx)} if ctx.changed else {}
        record_decision(conn, line.id, verdict=decision.verdict, reason=decision.reason, inputs=inputs)
    ctx.live.decided(decision.verdict, decision.reason, facts, missing=decision.missing or facts.misfit)
    if decision.verdict == "wait":
        return False
    run = _claim(led, line, decision, num_needed=policy.num_needed(facts))
    if run is None:
        return decision.reason == "bisecting"  # the half to be tried is empty; the other one follows at once
    failpoints.hit("run.after_claim")
    log.info(
        "run %d of line %s claimed: %s",
        run.number,
        line.name,
        decision.reason,
        extra={"event": "run_claimed", "line": line.name, "run": run.number, "reason": decision.reason},
    )
    return True


def _find_misfit(ctx: Context) -> str:
    """Return why no run can fit the device; empty where one may, or where the size of the base is not known."""
    shape = find_shape(ctx.settings)
    return "" if shape is None else find_misfit(shape, ctx.settings, ctx.device.kind, ctx.device.memory_bytes)


def _claim(led: Led, line: Line, decision: Decision, *, num_needed: int) -> Run | None:
    settings = led.ctx.settings
    for_base, probe = decision.verdict == "make_base", decision.reason == "bisecting"
    kinds = {"make_base": "base", "consolidate": "consolidation", "train": "adapter"}
    with led.ctx.engine.begin() as conn:
        check_fence(conn, led.lease)
        run = claim_run(
            conn,
            run_uuid=str(uuid.uuid4()),
            line_id=line.id,
            lease=led.lease,
            kind=kinds[decision.verdict],
            limits=limits_of(settings, for_base=for_base),
            min_rows=1 if for_base else num_needed,
            config=settings.model_dump(mode="json"),
            parent_version=line.current_version,
            replay_share=0.0 if for_base or probe else settings.replay_share,
            by_hash_share=settings.base_share if for_base else None,
            probe=probe,
        )
        if run is None and probe:
            skip_probe(conn, line.id)
        # What was asked for is an adapter: neither its base nor the search for a row at fault answers it.
        if run is not None and not (for_base or probe):
            answer_jobs(conn, run)
    return run
