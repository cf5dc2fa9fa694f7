"""The end of a run that failed: its rows go back, the reason is kept, the next try waits, and the culprit is sought."""

import logging
from typing import Any

from sqlalchemy import Connection

from daemon.context import Led
from daemon.job import Failure
from schema import failpoints, suspects
from schema.decisions import record_decision
from schema.lines import back_off, fetch_line, put_off
from schema.runs import CANCELLED, Run, advance_run, count_members, release_run

log = logging.getLogger(__name__)
_DAY_S = 86_400
_MOST_MESSAGE_CHARS = 1000
_MOST_TRACEBACK_CHARS = 4000


def fail_run(led: Led, run: Run, failure: Failure, reason: str | None = None) -> Run:
    """Close the run, give its rows back, keep the incumbent, wait before the next try.

    After `bisect_after` failures in a row that the rows caused, these are halved until the one at fault has failed
    alone and is quarantined. Runs of kind base are not searched: they are few, and nothing is in service yet.
    """
    ctx = led.ctx
    kept = _to_keep(run, failure, reason or failure.reason)
    failpoints.hit("run.before_release")
    with ctx.engine.begin() as conn:
        failed = release_run(
            conn, run, lease=led.lease, to="failed", reason=kept["reason"], waiting=False, figures={"failure": kept}
        )
        found = _search(conn, failed, ctx.settings.bisect_after)
        delay_s = _put_off(conn, led, failed, searching=bool(found))
        inputs = {"run": run.number, "message": kept["message"], "retry_in_s": delay_s, **found}
        record_decision(conn, led.line_id, verdict="failed", reason=kept["reason"], inputs=inputs)
    failpoints.hit("run.after_release")
    log.error(
        "run %d failed: %s (%s); its rows are released, the next try is in %d s%s",
        run.number,
        kept["reason"],
        kept["message"],
        delay_s,
        "".join(f"; {name}: {value}" for name, value in found.items()),
        extra={"event": "run_failed", "run": run.number, "reason": kept["reason"]},
    )
    ctx.live.finished_run(failed, describe_failure(failed))
    return failed


def describe_failure(failed: Run) -> str:
    """Return reason and message of a failed run, for people."""
    failure = failed.figures.get("failure", {})
    return f"{failed.reason}: {failure['message']}" if failure.get("message") else str(failed.reason)


def pass_probe(led: Led, run: Run, figures: dict[str, Any]) -> Run:
    """Go on after suspects have trained through: the row at fault is among those held back.

    A probe of a threshold of rows goes on to the gate like any other run; a smaller one ends as held.
    """
    with led.ctx.engine.begin() as conn:
        num_rows = count_members(conn, run.id)["train"]
        num_left = suspects.pass_probe(conn, led.line_id)
        if num_rows >= led.ctx.settings.threshold_rows:
            moved = advance_run(conn, run, lease=led.lease, to="evaluating", figures=figures)
        else:
            moved = release_run(
                conn, run, lease=led.lease, to="held", reason="probe_passed", waiting=False, figures=figures
            )
        inputs = {"run": run.number, "rows": num_rows, **_left(num_left)}
        record_decision(conn, led.line_id, verdict="cleared", reason="probe_passed", inputs=inputs)
    failpoints.hit("probe.after_pass")
    log.info(
        "run %d trained through: its %d rows are cleared, %d suspects are left",
        run.number,
        num_rows,
        num_left,
        extra={"event": "probe_passed", "run": run.number},
    )
    if moved.state == "held":
        led.ctx.live.finished_run(moved, f"probe passed: {num_rows} rows are cleared")
    return moved


def skip_probe(conn: Connection, line_id: int) -> None:
    """Go on when no row is left to be tried, all of them excluded meanwhile: as if they had trained through."""
    num_left = suspects.pass_probe(conn, line_id)
    record_decision(conn, line_id, verdict="cleared", reason="probe_empty", inputs=_left(num_left))


def _search(conn: Connection, failed: Run, bisect_after: int) -> dict[str, Any]:
    """Narrow the search for the row at fault down, or begin it; return what there is to say, {}: no search is on."""
    # Its rows went back without a mark when a probe trained through: what came later is an ordinary failure.
    is_probe = suspects.PROBE in failed.figures and "training" not in failed.figures
    if not failed.figures["failure"]["data_caused"]:
        if is_probe:
            suspects.try_again(conn, failed.id)
        return {}
    num_failures = suspects.count_data_failures(conn, failed.line_id)
    if failed.kind != "adapter" or not (is_probe or num_failures >= bisect_after):
        return {}
    culprit = suspects.narrow(conn, failed.id, failed.line_id, failed.figures["failure"]["reason"])
    if culprit is None:
        return {"caused_by_data_in_a_row": num_failures, **_left(suspects.count_suspects(conn, failed.line_id))}
    inputs = {"run": failed.number, **culprit}
    reason = failed.figures["failure"]["reason"]
    record_decision(conn, failed.line_id, verdict="quarantined", reason=reason, inputs=inputs)
    return {"quarantined": f"{culprit['repository']} {culprit['path']}"}


def _left(num_suspects: int) -> dict[str, Any]:
    return {"suspects": num_suspects} if num_suspects else {"suspects": 0, "search": "over, no row at fault was found"}


def _put_off(conn: Connection, led: Led, failed: Run, *, searching: bool) -> float:
    """Put the next try off; return for how many seconds. A search makes progress: its tries do not double the wait.

    A run that the operator cancelled is no failure: the wait, so that he may do what he cancelled it for, is the first
    one's, and counts for nothing.
    """
    settings = led.ctx.settings
    if failed.reason == CANCELLED:
        put_off(conn, led.line_id, settings.back_off_s)
        return settings.back_off_s
    line = fetch_line(conn, settings.line)
    num_failures = line.num_failures if line and not searching else 0
    delay_s = min(_DAY_S, settings.back_off_s * 2.0 ** min(num_failures, 20))
    back_off(conn, led.line_id, delay_s)
    return delay_s


def _to_keep(run: Run, failure: Failure, reason: str) -> dict[str, Any]:
    """Return what the run's row keeps: cut to a sensible length, of characters that JSONB can hold."""
    return {
        "reason": reason,
        "message": _printable(failure.message)[:_MOST_MESSAGE_CHARS],
        # What goes wrong in an evaluation is not the doing of the rows that were trained on.
        "data_caused": failure.data_caused and run.state == "training",
        "traceback": _printable(failure.traceback)[-_MOST_TRACEBACK_CHARS:],
    }


def _printable(text: str) -> str:
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
