"""One run, one committed state at a time: claimed → training → evaluating → promoted | held | rejected | failed."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from daemon.child import Supervised
from daemon.context import Context, Led
from daemon.courtesy import reason_to_wait
from daemon.failures import fail_run, pass_probe
from daemon.files import remove
from daemon.job import EvaluationResult, Failure, Result
from daemon.prepare import prepare_job
from daemon.publish import DamagedVersion
from daemon.reconcile import reconcile, sweep_line
from daemon.supervise import read_failure, run_child
from daemon.turns import take_device
from monitoring.logs import log_ids
from schema import failpoints
from schema.decisions import record_decision
from schema.runs import CANCELLED, Run, advance_run
from schema.suspects import PROBE

log = logging.getLogger(__name__)
# What a finished run leaves in its job directory; the rest is rebuilt from the database when it is needed again.
_BULKY = ("members.jsonl", "validation.jsonl", "test.jsonl", "checkpoints", "adapter", "base")


def advance(led: Led, run: Run) -> bool:
    """Advance the open run by one state; return whether it moved."""
    led.ctx.live.follows(run)
    steps = {"claimed": _prepare, "training": _train, "evaluating": _evaluate}
    try:
        return steps[run.state](led, run)
    except DamagedVersion as error:
        # The incumbent or the base on disk is not what was published: no retry mends that, the rows go back.
        _fail(led, run, Failure(reason="base_missing", message=str(error), data_caused=False), "damaged")
        return True


def _prepare(led: Led, run: Run) -> bool:
    prepare_job(led, run)
    failpoints.hit("run.before_training")
    _move(led, run, to="training")
    return True


def _train(led: Led, run: Run) -> bool:
    job = led.ctx.paths.job(run.number)
    prepare_job(led, run, missing_only=True)
    verb = "pretrain" if run.kind == "base" else "train"
    if not _is_whole(job / "result.json", Result) and not _run_child(led, run, verb):
        return False
    failpoints.hit("run.after_training")
    result = Result.model_validate_json((job / "result.json").read_bytes())
    from daemon.verdict import publish_base  # brings numpy, which an idle daemon does not need

    if run.kind == "base":
        publish_base(led, run, result)
        _clean(led.ctx, run.number)
    elif PROBE in run.figures:
        if pass_probe(led, run, _figures(result)).state == "held":
            _clean(led.ctx, run.number)
    else:
        _move(led, run, to="evaluating", figures=_figures(result))
    return True


def _evaluate(led: Led, run: Run) -> bool:
    prepare_job(led, run, missing_only=True)
    evaluation = led.ctx.paths.job(run.number) / "evaluation.json"
    if not _is_whole(evaluation, EvaluationResult) and not _run_child(led, run, "evaluate"):
        return False
    failpoints.hit("run.after_evaluation")
    from daemon.verdict import conclude

    conclude(led, run)
    _clean(led.ctx, run.number)
    reconcile(led)
    return True


def _run_child(led: Led, run: Run, verb: str) -> bool:
    """Run the child; return whether it is done. A stop leaves the run open, a failure closes it."""
    ctx = led.ctx
    if (why := reason_to_wait(ctx, datetime.now(UTC))) is not None:
        wait(led, *why)
        return False
    device_lease = take_device(ctx, new_run=run.state == "training" and run.attempt == 0)
    if device_lease is None:
        wait(led, "device_busy", {"device": ctx.device.name})
        return False
    ctx.live.goes_on()
    try:
        # Counted only once a child will start, and taken back when it stops in good order.
        started = _move(led, run, to=run.state, attempt=run.attempt + 1)
        if started.attempt > ctx.settings.max_run_attempts:
            interrupted = Failure(reason="exception", message="interrupted too often", data_caused=False)
            _fail(led, started, interrupted, "interrupted")
            return False
        child = Supervised(led, started, device_lease)
        with log_ids(attempt=started.attempt):
            outcome = run_child(verb, ctx.paths.job(run.number), child, stop_grace_s=ctx.settings.stop_grace_s)
    finally:
        ctx.live.child_ended()
        ctx.leadership.give_back(ctx.device.lease)
    if child.lease_lost:
        return False
    if outcome == "stopped":
        _move(led, started, to=run.state, attempt=min(run.attempt, child.run.attempt))
        return False
    if outcome == "killed":
        # It could not say why. It goes on from its last checkpoint, until that was tried too often without a new one.
        _move(led, started, to=run.state, attempt=child.run.attempt)
        return False
    if outcome == "failed":
        _fail(led, started, read_failure(ctx.paths.job(run.number)))
        return False
    _move(led, started, to=run.state, attempt=min(run.attempt, child.run.attempt))
    return True


def _is_whole(path: Path, kind: type[BaseModel]) -> bool:
    """Whether the child has left this file; one that cannot be read is worth another child, not a stuck run."""
    try:
        kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return False
    except ValidationError as error:
        event = {"event": "result_damaged", "file": str(path)}
        log.warning("%s cannot be read (%d faults): the child runs again", path, error.error_count(), extra=event)
        return False
    return True


def wait(led: Led, reason: str, inputs: dict[str, Any]) -> None:
    """Record that the line waits, and for what."""
    with led.ctx.engine.begin() as conn:
        record_decision(conn, led.line_id, verdict="wait", reason=reason, inputs=inputs)
    led.ctx.live.decided("wait", reason)


def sweep_jobs(led: Led, open_run: Run | None) -> None:
    """Drop what a process that died before it could do so left: of finished runs, and half written."""
    sweep_line(led.ctx.paths, None if open_run is None else open_run.number)
    folder = led.ctx.paths.jobs
    for job in folder.iterdir() if folder.is_dir() else ():
        if job.name.isdigit() and (open_run is None or int(job.name) != open_run.number):
            _clean(led.ctx, int(job.name))


def cancel(led: Led, run: Run) -> None:
    """End the open run as the operator asked."""
    _fail(led, run, Failure(reason="exception", message="cancelled by the operator", data_caused=False), CANCELLED)


def _fail(led: Led, run: Run, failure: Failure, reason: str | None = None) -> None:
    fail_run(led, run, failure, reason)
    _clean(led.ctx, run.number)


def _clean(ctx: Context, number: int) -> None:
    job = ctx.paths.job(number)
    for name in _BULKY:
        remove(job / name)


def _move(led: Led, run: Run, *, to: str, attempt: int | None = None, figures: dict[str, Any] | None = None) -> Run:
    with led.ctx.engine.begin() as conn:
        moved = advance_run(conn, run, lease=led.lease, to=to, attempt=attempt, figures=figures)
    led.ctx.live.follows(moved)
    return moved


def _figures(result: Result) -> dict[str, Any]:
    return {"training": result.model_dump(mode="json")}
