"""One tick: take the lead, advance the open run by one state, or count, decide and claim."""

import logging
import uuid

from sqlalchemy import Connection

from daemon import policy
from daemon.config import DaemonSettings
from daemon.context import Context, Led
from daemon.failures import describe_failure, skip_probe
from daemon.policy import Decision, Facts
from daemon.reconcile import reconcile, show_line
from daemon.rounds import advance, cancel, sweep_jobs, wait
from schema import failpoints
from schema.database import fetch_now
from schema.decisions import record_decision
from schema.jobs import answer_jobs, is_run_requested
from schema.leases import check_fence
from schema.lines import Line, back_off_left_s, fetch_line
from schema.repositories import is_drained
from schema.runs import (
    Limits,
    Run,
    claim_run,
    count_pending,
    count_split,
    fetch_last_failure,
    fetch_open_run,
    fetch_run,
)
from schema.suspects import count_suspects
from schema.tables import CLOSED_STATES

log = logging.getLogger(__name__)


def tick(ctx: Context) -> bool:
    """Do one step of work; return whether there was any, so that the caller ticks again at once."""
    lease = ctx.leadership.take(ctx.line_lease_name)
    with ctx.engine.connect() as conn:
        line = fetch_line(conn, ctx.settings.line)
    if line is None:
        raise RuntimeError(f"line {ctx.settings.line!r} is not open: open_line runs at the daemon's start")
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
        cancel(led, run)
        return True
    if line.paused:
        wait(led, "paused", {"run": run.number})
        return False
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


def limits_of(settings: DaemonSettings, *, for_base: bool) -> Limits:
    """Return which rows are eligible: the one predicate that count and claim share."""
    return Limits(
        min_score=settings.min_quality,
        min_chars=settings.min_chars,
        max_rows=settings.max_rows,
        max_chars_total=settings.base_max_chars if for_base else settings.max_run_chars,
    )


def gather_facts(conn: Connection, line: Line, settings: DaemonSettings) -> Facts:
    """Return what the decision rests on. The cost does not grow with the table until a run is about to start."""
    needs_base = settings.makes_base and line.tokenizer_digest is None
    facts = Facts(
        paused=line.paused,
        requested=is_run_requested(conn, line.id),
        needs_base=needs_base,
        num_fresh=0,
        threshold=settings.threshold_rows,
        num_test_units=None,
        min_test_units=settings.min_test_units,
        sources_unfinished=not is_drained(conn),
        retry_in_s=back_off_left_s(line, fetch_now(conn)),
        num_suspects=count_suspects(conn, line.id),
    )
    needed = policy.num_needed(facts)
    limits = limits_of(settings, for_base=needs_base)
    num_fresh = count_pending(conn, line.id, limits, at_most=needed)
    num_test_units = count_split(conn, line.id, limits).get("test", {}).get("units", 0) if num_fresh >= needed else None
    return facts.counted(num_fresh, num_test_units)


def _start_run(led: Led, line: Line) -> bool:
    ctx, settings = led.ctx, led.ctx.settings
    with ctx.engine.begin() as conn:
        facts = gather_facts(conn, line, settings)
        decision = policy.decide(facts)
        inputs = facts.as_inputs() | ({"missing": decision.missing} if decision.missing else {})
        record_decision(conn, line.id, verdict=decision.verdict, reason=decision.reason, inputs=inputs)
    ctx.live.decided(decision.verdict, decision.reason, facts, missing=decision.missing)
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


def _claim(led: Led, line: Line, decision: Decision, *, num_needed: int) -> Run | None:
    settings = led.ctx.settings
    for_base, probe = decision.verdict == "make_base", decision.reason == "bisecting"
    with led.ctx.engine.begin() as conn:
        check_fence(conn, led.lease)
        run = claim_run(
            conn,
            run_uuid=str(uuid.uuid4()),
            line_id=line.id,
            lease=led.lease,
            kind="base" if for_base else "adapter",
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
        if run is not None and run.kind == "adapter" and not probe:
            answer_jobs(conn, run)
    return run
