"""The end of a run: the gate's verdict, an immutable version, and the promotion by compare-and-swap."""

import logging
from typing import Any

from sqlalchemy import Connection

from daemon.config import settings_of
from daemon.context import Led
from daemon.gate import Gate, judge
from daemon.job import EvaluationResult, Result
from daemon.provenance import code_revision, write_attributions, write_model_card
from daemon.publish import folder_bytes, publish_folder
from monitoring import record
from schema import failpoints
from schema.decisions import record_decision
from schema.evaluations import fetch_units, save_evaluations
from schema.leases import check_fence
from schema.lines import back_off, set_tokenizer
from schema.runs import Run, advance_run, count_members, release_run
from schema.versions import fetch_version, next_version_number, promote, save_version, set_verdict

log = logging.getLogger(__name__)
_STATES = {"promote": "promoted", "hold": "held", "reject": "rejected"}


def conclude(led: Led, run: Run) -> Run:
    """Judge the candidate, publish it as a version, and make it current when it is better. May be repeated."""
    job = led.ctx.paths.job(run.number)
    settings = settings_of(run.config)
    result = Result.model_validate_json((job / "result.json").read_bytes())
    evaluation = EvaluationResult.model_validate_json((job / "evaluation.json").read_bytes())
    gate = judge(
        evaluation.items,
        confidence=settings.bootstrap_confidence,
        rounds=settings.bootstrap_rounds,
        seed=settings.seed,
        old_units=_old_units(led, run),
        max_regression=settings.max_regression,
    )
    run = _number(led, run)
    assert run.version is not None  # noqa: S101
    target = led.ctx.paths.version(run.version)
    with led.ctx.engine.connect() as conn:
        roles = count_members(conn, run.id)
    attributions = write_attributions(job / "adapter", led.ctx.engine, run)
    write_model_card(job / "adapter", run, result, gate, roles=roles, attributions=attributions)
    manifest = _manifest(led, run, result, attributions)
    digest = publish_folder(job / "adapter", target, manifest, confirm=lambda: _confirm_lead(led))
    failpoints.hit("publish.before_promote")
    with led.ctx.engine.begin() as conn:
        closed = _close(conn, led, run, gate, evaluation, digest, folder_bytes(target))
    record.record_gate(gate.verdict, gate.reason)
    failpoints.hit("publish.after_promote")
    log.info(
        "run %d is %s: %s",
        run.number,
        closed.state,
        gate.summary(),
        extra={"event": "run_concluded", "run": run.number},
    )
    led.ctx.live.finished_run(closed, gate.summary())
    return closed


def publish_base(led: Led, run: Run, result: Result) -> Run:
    """Publish the base that run 0 made and bind the line to its tokenizer."""
    paths = led.ctx.paths
    base = paths.job(run.number) / "base"
    manifest = _manifest(led, run, result, write_attributions(base, led.ctx.engine, run))
    digest = publish_folder(base, paths.base, manifest, confirm=lambda: _confirm_lead(led))
    with led.ctx.engine.begin() as conn:
        closed = advance_run(
            conn,
            run,
            lease=led.lease,
            to="promoted",
            reason="base_made",
            figures={"training": result.model_dump(mode="json")},
            artifact_digest=digest,
        )
        set_tokenizer(conn, led.line_id, result.tokenizer_digest, digest)
        back_off(conn, led.line_id, None)
    led.ctx.live.finished_run(closed, f"base of {result.trainable_parameters / 1e6:.1f} M parameters made")
    return closed


def _confirm_lead(led: Led) -> None:
    """Raise StaleFence where another leads: a leader that wakes up late must not put its files in the other's place."""
    with led.ctx.engine.begin() as conn:
        check_fence(conn, led.lease)


def _old_units(led: Led, run: Run) -> set[str]:
    """Return the units on which the adapter was judged that the candidate is to replace."""
    with led.ctx.engine.connect() as conn:
        return set() if run.parent_version is None else fetch_units(conn, led.line_id, run.parent_version)


def _number(led: Led, run: Run) -> Run:
    """Give the run its version number, once: a repeated try publishes under the same."""
    if run.version is not None:
        return run
    with led.ctx.engine.begin() as conn:
        number = next_version_number(conn, led.line_id)
        return advance_run(conn, run, lease=led.lease, to=run.state, version=number)


def _close(
    conn: Connection,
    led: Led,
    run: Run,
    gate: Gate,
    evaluation: EvaluationResult,
    digest: str,
    num_bytes: int,
) -> Run:
    """Record version, figures and verdict in one transaction; a lost compare-and-swap turns a promotion into a hold."""
    assert run.version is not None  # noqa: S101
    check_fence(conn, led.lease)
    if fetch_version(conn, led.line_id, run.version) is None:
        save_version(
            conn,
            line_id=led.line_id,
            number=run.version,
            run_id=run.id,
            parent=run.parent_version,
            manifest_digest=digest,
            num_bytes=num_bytes,
            lease=led.lease,
        )
    save_evaluations(conn, run.id, evaluation_rows(evaluation))
    state, reason = _STATES[gate.verdict], gate.reason
    if state == "promoted" and not promote(
        conn,
        line_id=led.line_id,
        version=run.version,
        expected=run.parent_version,
        actor="gate",
        reason=gate.summary(),
        lease=led.lease,
    ):
        # Somebody promoted or rolled back meanwhile: this candidate was judged against another incumbent.
        state, reason = "held", "incumbent_changed"
    set_verdict(conn, led.line_id, run.version, state)
    record_decision(
        conn,
        led.line_id,
        verdict=state,
        reason=reason,
        inputs={"run": run.number, "kind": run.kind, **gate.as_inputs()},
    )
    back_off(conn, led.line_id, None)
    if run.base_revision is None:
        # What the first round found on the hub is the base of the line from now on.
        result = Result.model_validate(run.figures["training"])
        set_tokenizer(conn, led.line_id, result.tokenizer_digest, result.base_revision)
    run = advance_run(
        conn, run, lease=led.lease, to=run.state, figures={"gate": gate.as_inputs()}, artifact_digest=digest
    )
    if state == "promoted":
        return advance_run(conn, run, lease=led.lease, to=state, reason=reason)
    # New rows of a consolidation have not been tried on top of the incumbent yet: the next round takes them.
    return release_run(conn, run, lease=led.lease, to=state, reason=reason, waiting=run.kind != "consolidation")


def evaluation_rows(evaluation: EvaluationResult) -> list[dict[str, Any]]:
    """Return the figures to keep: bits per byte by model, for the whole set, each language and each unit."""
    sums: dict[tuple[str, str, str], list[float]] = {}
    for item in evaluation.items:
        for model, bits in item.bits.items():
            for language, unit in (("", ""), (item.language, ""), ("", item.unit)):
                total = sums.setdefault((model, language, unit), [0.0, 0])
                total[0] += bits
                total[1] += item.num_bytes
    return [
        {
            "model": model,
            "eval_set": "test",
            "metric": "bits_per_byte",
            "language": language,
            "unit": unit,
            "value": bits / num_bytes,
            "num_bytes": int(num_bytes),
        }
        for (model, language, unit), (bits, num_bytes) in sums.items()
        if num_bytes
    ]


def _manifest(led: Led, run: Run, result: Result, attributions: dict[str, Any]) -> dict[str, Any]:
    """Return what a version says of itself (I4)."""
    return {
        "format_version": 1,
        "line": led.ctx.settings.line,
        "run": run.number,
        "kind": run.kind,
        "version": run.version,
        "parent": run.parent_version,
        "base_model": led.ctx.settings.base_model,
        "base_revision": result.base_revision,
        "tokenizer_digest": result.tokenizer_digest,
        "members_digest": run.members_digest,
        "attributions": attributions,
        "seed": settings_of(run.config).seed + run.number,
        "config": run.config,
        "code_revision": code_revision(),
        "library_versions": result.versions,
    }
