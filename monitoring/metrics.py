"""The one list of metrics: every name, unit and label that codelupe exports (docs/metrics.md is made from it).

Prefix `codelupe_`, base units, times as Unix timestamps (an age is `time() - x`). Labels take values from our code
alone, never a repository, a path or an owner. A gauge without labels is absent until it is known, so that no alert
reads a zero that nobody measured. One process owns a port and these objects; its workers report to it (record.py).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` twin of every counter: nobody asks for it
REGISTRY: Final = CollectorRegistry()

INGEST_OUTCOMES: Final = ("new", "known", "superseded", "excluded", "refused")
REPOSITORY_OUTCOMES: Final = ("done", "refused", "retried", "dead", "disk_full")
QUEUE_STATES: Final = ("queued", "working", "done", "refused", "dead")
TICK_OUTCOMES: Final = ("worked", "idle", "busy", "failed")
RUN_STATES: Final = ("idle", "claimed", "training", "evaluating")
RUN_OUTCOMES: Final = ("promoted", "held", "rejected", "failed")
FAILURE_REASONS: Final = (
    *("nan", "loss_spike", "out_of_memory", "data", "base_missing", "disk", "device", "exception"),
    *("damaged", "interrupted", "cancelled"),
)
CRAWL_REQUEST_OUTCOMES: Final = (
    *("ok", "not_modified", "moved", "primary", "secondary", "server_error", "timeout", "connection", "broken_body"),
    *("bad_token", "rejected"),
)
CRAWL_REPOSITORY_OUTCOMES: Final = ("queued", "refused", "known", "taken_name", "malformed")
CRAWL_WINDOW_STATES: Final = ("pending", "working", "done", "split", "kept")
LOOPS: Final = ("ingest", "crawl", "tick", "child_reader", "audit")
UNKNOWN: Final = math.nan

SHORT_S: Final = (0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0)
LONG_S: Final = (1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 28800.0, 86400.0, 345600.0)


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as the documentation tells it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


CATALOGUE: Final[list[Described]] = []


class LateGauge(Gauge):
    """A gauge that exports nothing while its value is NaN, which is what it starts with and what forgets it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self._labelnames:
            self.set(UNKNOWN)

    def collect(self) -> Iterable[Metric]:
        """Yield the family with its known samples."""
        for family in super().collect():
            family.samples = [sample for sample in family.samples if not math.isnan(sample.value)]
            yield family


def _describe(name: str, kind: str, labels: tuple[str, ...], help_text: str) -> str:
    described = Described(f"codelupe_{name}", kind, labels, help_text)
    CATALOGUE.append(described)
    return described.name


def _gauge(name: str, help_text: str, *labels: str) -> LateGauge:
    return LateGauge(_describe(name, "gauge", labels, help_text), help_text, labels, registry=REGISTRY)


def _counter(name: str, help_text: str, *labels: str) -> Counter:
    return Counter(_describe(name, "counter", labels, help_text), help_text, labels, registry=REGISTRY)


def _histogram(name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    full_name = _describe(name, "histogram", labels, help_text)
    return Histogram(full_name, help_text, labels, registry=REGISTRY, buckets=buckets)


# --- the process ------------------------------------------------------------------------------------------------------
ProcessCollector(registry=REGISTRY)
BUILD_INFO = _gauge("build_info", "1, with what is running as labels", "version", "python", "profile", "line")
LOOP_ERRORS = _counter(
    "loop_errors_total", "Exceptions caught at the edge of a loop, each logged with its traceback", "loop"
)

CLOCK_JUMPS = _counter("clock_jumps_total", "Times that the machine's clock was set by more than two seconds")

# --- ingest -----------------------------------------------------------------------------------------------------------
INGEST_FILES = _counter(
    "ingest_files_total", "Files looked at, by outcome and, where there is one, reason", "outcome", "reason"
)
INGEST_LANGUAGES = _counter("ingest_language_files_total", "Files accepted, by language", "language")
INGEST_REPOSITORIES = _counter("ingest_repositories_total", "Visits to sources, by how they ended", "outcome")
INGEST_QUEUE = _gauge("ingest_queue_repositories", "Sources in the clone queue, by state", "state")
INGEST_ROWS = _counter("ingest_rows_total", "Rows stored")
INGEST_BYTES = _counter("ingest_bytes_total", "Bytes of source files read and judged")
INGEST_STAGE_SECONDS = _histogram("ingest_stage_seconds", "Duration of one stage of one visit", SHORT_S, "stage")
INGEST_WORKERS = _gauge("ingest_workers", "Worker processes alive")

# --- crawler ----------------------------------------------------------------------------------------------------------
CRAWL_REQUESTS = _counter("crawl_requests_total", "Requests to GitHub's API, by what came of them", "outcome")
CRAWL_LIMIT_REMAINING = _gauge(
    "crawl_limit_remaining", "Requests left in GitHub's rate limits, over all tokens", "resource"
)
CRAWL_WAITED_SECONDS = _counter(
    "crawl_waited_seconds_total", "Seconds that the crawler waited for a rate limit, or after a failure", "reason"
)
CRAWL_REPOSITORIES = _counter("crawl_repositories_total", "Repositories found, by what became of them", "outcome")
CRAWL_WINDOWS = _gauge("crawl_windows", "Questions to GitHub's search, by state", "state")

# --- store ------------------------------------------------------------------------------------------------------------
DATABASE_UP = _gauge("database_up", "1 if the last statement reached the database, 0 if the database was away")
STORE_ROWS = _gauge(
    "store_rows", "Stored items of this line, by state of the row accounting, at the last audit", "state"
)
ROWS_UNACCOUNTED = _gauge("rows_unaccounted", "Stored items that are in no state or in two; anything but 0 is a fault")
AUDIT_TIMESTAMP = _gauge("audit_timestamp_seconds", "When the row accounting was last computed, Unix time")

# --- daemon -----------------------------------------------------------------------------------------------------------
TICKS = _counter("daemon_ticks_total", "Ticks, by what came of them", "outcome")
TICKS_SKIPPED = _counter("daemon_ticks_skipped_total", "Clock ticks that found the previous one still at work")
TICK_SECONDS = _histogram(
    "daemon_tick_seconds", "Duration of a tick; one that trains lasts as long as the training", LONG_S
)
DECISIONS = _counter("daemon_decisions_total", "Decisions to train or not, by verdict and reason", "verdict", "reason")
LAST_TICK_TIMESTAMP = _gauge(
    "daemon_last_tick_timestamp_seconds", "When the loop last gave a sign of life (tick or its supervisor), Unix time"
)
LAST_SUCCESS_TIMESTAMP = _gauge(
    "daemon_last_success_timestamp_seconds", "When a tick last ended without an error, Unix time"
)
CHECK_INTERVAL = _gauge("daemon_check_interval_seconds", "Configured time between two ticks of an idle daemon")
BACKLOG_ROWS = _gauge("daemon_backlog_rows", "Rows that the next run could claim, counted up to a limit")
THRESHOLD_ROWS = _gauge("daemon_threshold_rows", "Rows that the next run needs")
LEASE_HELD = _gauge("daemon_lease_held", "1 while this process holds the line's lease")
PAUSED = _gauge("daemon_paused", "1 while the operator has paused the line")
FAILURES_IN_A_ROW = _gauge(
    "daemon_failures_in_a_row", "Failed runs since the last one that ended otherwise; a passed probe is none"
)

# --- the run, live ----------------------------------------------------------------------------------------------------
RUN_NUMBER = _gauge("run_number", "Number of the open run, or of the last one")
RUN_STATE = _gauge("run_state", "1 for the state of the open run, 0 for the others; idle when none is open", "state")
RUNS = _counter("runs_total", "Closed runs, by outcome", "outcome")
RUNS_FAILED = _counter("runs_failed_total", "Failed runs, by reason", "reason")
RUN_SECONDS = _histogram("run_seconds", "From claim to verdict, by outcome", LONG_S, "outcome")
TRAIN_PHASE = _gauge("train_phase", "1 for what the child is doing; absent without a child", "phase")
TRAIN_STEP = _gauge("train_step", "Optimizer steps done")
TRAIN_STEPS = _gauge("train_steps", "Optimizer steps planned, counted after packing")
TRAIN_EPOCH = _gauge("train_epoch", "Passes over the members, with its fraction")
TRAIN_LOSS = _gauge("train_loss", "Mean cross-entropy of the last step, nats per completion token")
TRAIN_EVAL_LOSS = _gauge("train_eval_loss", "Mean cross-entropy on the validation subsample, nats per completion token")
TRAIN_LEARNING_RATE = _gauge("train_learning_rate", "Learning rate of the last step")
TRAIN_GRAD_NORM = _gauge("train_grad_norm", "Norm of the last step's gradient before clipping")
TRAIN_TOKENS = _gauge("train_tokens", "Tokens trained on in this run")
TRAIN_TOKENS_PER_SECOND = _gauge("train_tokens_per_second", "Training throughput, tokens per second")
TRAIN_ETA_SECONDS = _gauge("train_eta_seconds", "Expected seconds to the last step")
TRAIN_PROGRESS_TIMESTAMP = _gauge(
    "train_progress_timestamp_seconds", "When the child last advanced (a step, an evaluation, a new phase), Unix time"
)
TRAIN_ATTENTION_INFO = _gauge("train_attention_info", "1, with the attention implementation as label", "implementation")
TRAIN_OOM_EVENTS = _counter("train_oom_events_total", "Times that training ran out of device memory")
TRAIN_CHECKPOINT_FAILURES = _counter(
    "train_checkpoint_failures_total", "Checkpoints that the disk did not take; training went on without them"
)
TRAIN_CHECKPOINT_SECONDS = _histogram("train_checkpoint_seconds", "Duration of writing a checkpoint", SHORT_S)
TRAIN_CHECKPOINT_TIMESTAMP = _gauge(
    "train_checkpoint_timestamp_seconds", "When the last checkpoint was written, Unix time"
)

# --- versions ---------------------------------------------------------------------------------------------------------
VERSION_CURRENT = _gauge("version_current", "Number of the current version; absent before the first")
VERSION_PROMOTED_TIMESTAMP = _gauge("version_promoted_timestamp_seconds", "When it became current, Unix time")
VERSION_VERIFIED = _gauge("version_verified", "1 if the current version's files match its manifest")
EVALUATION_BITS_PER_BYTE = _gauge(
    "evaluation_bits_per_byte", "Bits per byte of held-out code in the last evaluation, by model", "model"
)
GATE_GAIN = _gauge(
    "gate_gain_bits_per_byte",
    "Incumbent's minus candidate's bits per byte in the last gate, with its interval",
    "bound",
)

for _metric, _label, _values in (
    (INGEST_REPOSITORIES, "outcome", REPOSITORY_OUTCOMES),
    (CRAWL_REQUESTS, "outcome", CRAWL_REQUEST_OUTCOMES),
    (CRAWL_WAITED_SECONDS, "reason", ("limit", "back_off")),
    (CRAWL_REPOSITORIES, "outcome", CRAWL_REPOSITORY_OUTCOMES),
    (TICKS, "outcome", TICK_OUTCOMES),
    (RUNS, "outcome", RUN_OUTCOMES),
    (RUNS_FAILED, "reason", FAILURE_REASONS),
    (LOOP_ERRORS, "loop", LOOPS),
):
    for _value in _values:  # a counter must be seen at 0, or rate() misses its first event
        _metric.labels(**{_label: _value})
