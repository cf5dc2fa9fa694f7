"""Plain functions that write plain values into the metrics: the only place that knows which figure goes where."""

import platform
import time
from collections.abc import Iterable, Mapping
from typing import Any

from monitoring import metrics
from monitoring.child_events import forget_child as forget_child
from monitoring.child_events import record_event as record_event


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
    if num_rows:
        metrics.INGEST_LAST_ROW_TIMESTAMP.set(time.time())
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


def record_refused_repository(reason: str) -> None:
    """Count a visit that gave nothing; `reason` is the short word in the repository's row."""
    metrics.INGEST_REFUSED_REPOSITORIES.labels(reason).inc()


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


def record_threshold_eta(seconds: float | None) -> None:
    """Set the expected time to the threshold; None: not known."""
    metrics.THRESHOLD_ETA_SECONDS.set(metrics.UNKNOWN if seconds is None else seconds)


def record_damaged_state_file() -> None:
    """Count a state file that was set aside."""
    metrics.STATE_FILE_DAMAGED.inc()


def record_alive() -> None:
    """Give a sign of life: at the start, in each tick, and each second of a tick that supervises a child."""
    metrics.LAST_TICK_TIMESTAMP.set(time.time())


def record_changed_settings(num: int, *, check_interval_s: float) -> None:
    """Set how many settings were changed at run time, and the interval that now holds."""
    metrics.SETTINGS_CHANGED.set(num)
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


# --- versions ---------------------------------------------------------------------------------------------------------


def record_version(number: int | None, *, promoted_at_s: float | None, verified: bool) -> None:
    """Set the current version, when it became so (Unix time) and whether its files match its manifest."""
    metrics.VERSION_CURRENT.set(metrics.UNKNOWN if number is None else number)
    metrics.VERSION_PROMOTED_TIMESTAMP.set(metrics.UNKNOWN if promoted_at_s is None else promoted_at_s)
    metrics.VERSION_VERIFIED.set(metrics.UNKNOWN if number is None else verified)


def record_evaluations(rows: Iterable[Mapping[str, Any]]) -> None:
    """Set the last evaluation from rows of model, eval_set, metric, language, unit, value; a unit's own are left out.

    A language of "" stands for the whole set.
    """
    metrics.EVALUATION_BITS_PER_BYTE.clear()
    for row in rows:
        if row["metric"] == "bits_per_byte" and not row["unit"]:
            labels = row["model"], row["eval_set"], row["language"] or "all"
            metrics.EVALUATION_BITS_PER_BYTE.labels(*labels).set(row["value"])


def record_gain(gain: tuple[float, float, float] | None) -> None:
    """Set the last gate's gain in bits per byte as (low, estimate, high), the incumbent's minus the candidate's."""
    for bound, value in zip(("low", "estimate", "high"), gain or (metrics.UNKNOWN,) * 3, strict=True):
        metrics.GATE_GAIN.labels(bound).set(value)


def record_gate(verdict: str, reason: str) -> None:
    """Count a verdict on a candidate; both are the gate's own short words."""
    metrics.GATE_VERDICTS.labels(verdict, reason).inc()
