"""Plain functions that write plain values into the metrics: the only place that knows which figure goes where."""

import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

from monitoring import metrics

_STEP_FIGURES = {
    "step": metrics.TRAIN_STEP,
    "total": metrics.TRAIN_STEPS,
    "epoch": metrics.TRAIN_EPOCH,
    "loss": metrics.TRAIN_LOSS,
    "lr": metrics.TRAIN_LEARNING_RATE,
    "grad_norm": metrics.TRAIN_GRAD_NORM,
    "tokens": metrics.TRAIN_TOKENS,
    "tokens_per_s": metrics.TRAIN_TOKENS_PER_SECOND,
    "eta_s": metrics.TRAIN_ETA_SECONDS,
}


def record_start(*, version: str, profile: str, line: str = "") -> None:
    """Say what is running. `line` is empty for ingest, which serves every line."""
    metrics.BUILD_INFO.labels(version, platform.python_version(), profile, line).set(1)


def record_database(*, up: bool) -> None:
    """Say whether the last statement reached the database."""
    metrics.DATABASE_UP.set(up)


def record_clock_jump() -> None:
    """Count a jump of the machine's clock."""
    metrics.CLOCK_JUMPS.inc()


def record_loop_error(loop: str) -> None:
    """Count an exception that a loop's edge caught; `loop` is one of metrics.LOOPS."""
    metrics.LOOP_ERRORS.labels(loop).inc()


# --- ingest -----------------------------------------------------------------------------------------------------------


def record_files(counts: Mapping[tuple[str, str], int], *, num_rows: int = 0, num_bytes: int = 0) -> None:
    """Add a visit's files by (outcome, reason), the rows it stored and the bytes it read."""
    for (outcome, reason), count in counts.items():
        metrics.INGEST_FILES.labels(outcome, reason).inc(count)
    metrics.INGEST_ROWS.inc(num_rows)
    metrics.INGEST_BYTES.inc(num_bytes)


def record_languages(counts: Mapping[str, int]) -> None:
    """Add a visit's accepted files by language."""
    for language, count in counts.items():
        metrics.INGEST_LANGUAGES.labels(language).inc(count)


def record_repository(outcome: str, stages: Mapping[str, float] | None = None) -> None:
    """Count a visit by outcome (metrics.REPOSITORY_OUTCOMES) with the seconds of its stages."""
    metrics.INGEST_REPOSITORIES.labels(outcome).inc()
    for stage, seconds in (stages or {}).items():
        metrics.INGEST_STAGE_SECONDS.labels(stage).observe(seconds)


def record_queue(counts: Mapping[str, int]) -> None:
    """Set the clone queue's size by state; a state that is not named is 0."""
    for state in metrics.QUEUE_STATES:
        metrics.INGEST_QUEUE.labels(state).set(counts.get(state, 0))


# --- crawler ----------------------------------------------------------------------------------------------------------


def record_crawl_request(outcome: str) -> None:
    """Count a request to GitHub by outcome (metrics.CRAWL_REQUEST_OUTCOMES)."""
    metrics.CRAWL_REQUESTS.labels(outcome).inc()


def record_limit(resource: str, remaining: int | None) -> None:
    """Set the requests left on a resource (search or core), as far as they are known."""
    if remaining is not None:
        metrics.CRAWL_LIMIT_REMAINING.labels(resource).set(remaining)


def record_crawl_wait(reason: str, seconds: float) -> None:
    """Add a wait that begins: `limit` or `back_off`."""
    metrics.CRAWL_WAITED_SECONDS.labels(reason).inc(seconds)


def record_found(counts: Mapping[str, int]) -> None:
    """Add a page's repositories by outcome (metrics.CRAWL_REPOSITORY_OUTCOMES)."""
    for outcome, count in counts.items():
        metrics.CRAWL_REPOSITORIES.labels(outcome).inc(count)


def record_windows(counts: Mapping[str, int]) -> None:
    """Set the crawler's windows by state (metrics.CRAWL_WINDOW_STATES)."""
    for state in metrics.CRAWL_WINDOW_STATES:
        metrics.CRAWL_WINDOWS.labels(state).set(counts.get(state, 0))


# --- store and daemon -------------------------------------------------------------------------------------------------


def record_audit(by_state: Mapping[str, int], *, num_unaccounted: int) -> None:
    """Set the row accounting as it was just computed."""
    metrics.STORE_ROWS.clear()
    for state, count in by_state.items():
        metrics.STORE_ROWS.labels(state).set(count)
    metrics.ROWS_UNACCOUNTED.set(num_unaccounted)
    metrics.AUDIT_TIMESTAMP.set(time.time())


def record_alive(*, check_interval_s: float | None = None) -> None:
    """Give a sign of life: at the start, in each tick, and each second of a tick that supervises a child."""
    metrics.LAST_TICK_TIMESTAMP.set(time.time())
    if check_interval_s is not None:
        metrics.CHECK_INTERVAL.set(check_interval_s)


def record_tick(outcome: str, seconds: float) -> None:
    """Count a tick that ended, by outcome (metrics.TICK_OUTCOMES); all but `failed` are a success."""
    record_alive()
    metrics.TICKS.labels(outcome).inc()
    metrics.TICK_SECONDS.observe(seconds)
    if outcome != "failed":
        metrics.LAST_SUCCESS_TIMESTAMP.set(time.time())


def record_skipped_tick() -> None:
    """Count a clock tick that found the previous one still at work."""
    metrics.TICKS_SKIPPED.inc()


def record_decision(verdict: str, reason: str) -> None:
    """Count a decision; verdict and reason are policy's own short words."""
    metrics.DECISIONS.labels(verdict, reason).inc()


def record_line(
    *, backlog_rows: int, threshold_rows: int, lease_held: bool, paused: bool, failures_in_a_row: int
) -> None:
    """Set what a tick saw of its line."""
    metrics.BACKLOG_ROWS.set(backlog_rows)
    metrics.THRESHOLD_ROWS.set(threshold_rows)
    metrics.LEASE_HELD.set(lease_held)
    metrics.PAUSED.set(paused)
    metrics.FAILURES_IN_A_ROW.set(failures_in_a_row)


# --- runs -------------------------------------------------------------------------------------------------------------


def record_run_state(state: str | None, *, number: int | None = None) -> None:
    """Set the open run's state; None when no run is open."""
    for known in metrics.RUN_STATES:
        metrics.RUN_STATE.labels(known).set(known == (state or "idle"))
    if number is not None:
        metrics.RUN_NUMBER.set(number)


def record_closed_run(outcome: str, seconds: float, *, reason: str | None = None) -> None:
    """Count a run that ended (metrics.RUN_OUTCOMES), `seconds` after its claim; no run is open then.

    `reason` is why it failed, if it did (metrics.FAILURE_REASONS).
    """
    if reason is not None:
        metrics.RUNS_FAILED.labels(reason if reason in metrics.FAILURE_REASONS else "exception").inc()
    metrics.RUNS.labels(outcome).inc()
    metrics.RUN_SECONDS.labels(outcome).observe(seconds)
    record_run_state(None)
    forget_child()


def forget_child() -> None:
    """Drop the live figures: the child is gone, and its last loss is nobody's."""
    for gauge in (*_STEP_FIGURES.values(), metrics.TRAIN_EVAL_LOSS, metrics.TRAIN_PROGRESS_TIMESTAMP):
        gauge.set(metrics.UNKNOWN)
    metrics.TRAIN_PHASE.clear()


def record_event(event: Mapping[str, Any]) -> None:
    """Take one progress event of the child; those without a figure (and unknown ones) change nothing."""
    handler = _HANDLERS.get(str(event.get("event")))
    if handler is not None:
        handler(event)


def _take_phase(event: Mapping[str, Any]) -> None:
    metrics.TRAIN_PHASE.clear()
    metrics.TRAIN_PHASE.labels(str(event["phase"])).set(1)
    metrics.TRAIN_PROGRESS_TIMESTAMP.set(time.time())


def _take_step(event: Mapping[str, Any]) -> None:
    for name, gauge in _STEP_FIGURES.items():
        if isinstance(event.get(name), int | float):
            gauge.set(event[name])
    metrics.TRAIN_PROGRESS_TIMESTAMP.set(time.time())


def _take_eval(event: Mapping[str, Any]) -> None:
    metrics.TRAIN_EVAL_LOSS.set(event["loss"])
    metrics.TRAIN_PROGRESS_TIMESTAMP.set(time.time())


def _take_checkpoint(event: Mapping[str, Any]) -> None:
    metrics.TRAIN_CHECKPOINT_SECONDS.observe(event["seconds"])
    metrics.TRAIN_CHECKPOINT_TIMESTAMP.set(time.time())


def _take_progress(_: Mapping[str, Any]) -> None:
    metrics.TRAIN_PROGRESS_TIMESTAMP.set(time.time())


def _take_attention(event: Mapping[str, Any]) -> None:
    metrics.TRAIN_ATTENTION_INFO.clear()
    metrics.TRAIN_ATTENTION_INFO.labels(str(event["attention"])).set(1)


def _take_note(event: Mapping[str, Any]) -> None:
    counters = {"out_of_memory": metrics.TRAIN_OOM_EVENTS, "checkpoint_failed": metrics.TRAIN_CHECKPOINT_FAILURES}
    counter = counters.get(str(event.get("note")))
    if counter is not None:
        counter.inc()


_HANDLERS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "phase": _take_phase,
    "step": _take_step,
    "eval": _take_eval,
    "checkpoint": _take_checkpoint,
    "note": _take_note,
    "attention": _take_attention,
    "progress": _take_progress,
}


# --- versions ---------------------------------------------------------------------------------------------------------


def record_version(number: int | None, *, promoted_at_s: float | None, verified: bool) -> None:
    """Set the current version, when it became so (Unix time) and whether its files match its manifest."""
    metrics.VERSION_CURRENT.set(metrics.UNKNOWN if number is None else number)
    metrics.VERSION_PROMOTED_TIMESTAMP.set(metrics.UNKNOWN if promoted_at_s is None else promoted_at_s)
    metrics.VERSION_VERIFIED.set(metrics.UNKNOWN if number is None else verified)


def record_evaluation(bits_per_byte: Mapping[str, float], *, gain: tuple[float, float, float] | None = None) -> None:
    """Set the last evaluation by model (base, incumbent, candidate) and the gate's gain as (low, estimate, high)."""
    metrics.EVALUATION_BITS_PER_BYTE.clear()
    for model, value in bits_per_byte.items():
        metrics.EVALUATION_BITS_PER_BYTE.labels(model).set(value)
    for bound, value in zip(("low", "estimate", "high"), gain or (metrics.UNKNOWN,) * 3, strict=True):
        metrics.GATE_GAIN.labels(bound).set(value)
