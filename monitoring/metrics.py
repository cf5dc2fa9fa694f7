"""The one list of metrics: every name, unit and label that codelupe exports (docs/metrics.md is made from it).

Prefix `codelupe_`, base units, times as Unix timestamps (an age is `time() - x`). Labels take values from our code
alone, never a repository, a path or an owner. A gauge without labels is absent until it is known, so that no alert
reads a zero that nobody measured. One process owns a port and these objects; its workers report to it (record.py).
"""

from typing import Final

from prometheus_client import ProcessCollector

from monitoring.families import CATALOGUE as CATALOGUE
from monitoring.families import REGISTRY as REGISTRY
from monitoring.families import UNKNOWN as UNKNOWN
from monitoring.families import counter, gauge, histogram

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
LOOPS: Final = ("ingest", "crawl", "tick", "child_reader", "audit", "sensors")

POOL_STATES: Final = ("in_use", "idle")
SHORT_S: Final = (0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0)
LONG_S: Final = (1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 28800.0, 86400.0, 345600.0)


# --- the process ------------------------------------------------------------------------------------------------------
ProcessCollector(registry=REGISTRY)
BUILD_INFO = gauge("build_info", "1, with what is running as labels", "version", "python", "profile", "line")
LOOP_ERRORS = counter(
    "loop_errors_total", "Exceptions caught at the edge of a loop, each logged with its traceback", "loop"
)

CLOCK_JUMPS = counter("clock_jumps_total", "Times that the machine's clock was set by more than two seconds")

# --- the machine, once a second ---------------------------------------------------------------------------------------
MACHINE_CPU_BUSY = gauge("machine_cpu_busy_ratio", "Share of all cores' time that was not idle, over the last second")
MACHINE_LOAD = gauge("machine_load_tasks", "Tasks that ran or waited, mean of the last minute")
MACHINE_MEMORY_BYTES = gauge("machine_memory_bytes", "Memory of the machine")
MACHINE_MEMORY_AVAILABLE_BYTES = gauge("machine_memory_available_bytes", "Memory that programs could still get")
DISK_BYTES = gauge("disk_bytes", "Size of the file system that CODELUPE_HOME lies on")
DISK_FREE_BYTES = gauge("disk_free_bytes", "Space left for us on the file system that CODELUPE_HOME lies on")

# --- GPUs, by NVML, once a second; absent without one, and what a card does not tell is absent too --------------------
GPU_INFO = gauge("gpu_info", "1, with the card's name and driver as labels", "gpu", "name", "driver")
GPU_UP = gauge("gpu_up", "1 while the card answers, 0 once it is lost", "gpu")
GPU_MEMORY_BYTES = gauge("gpu_memory_bytes", "Memory of the card", "gpu")
GPU_MEMORY_USED_BYTES = gauge("gpu_memory_used_bytes", "Memory of the card that is in use, by whomever", "gpu")
GPU_UTILIZATION = gauge("gpu_utilization_ratio", "Share of the last moment in which a kernel ran", "gpu")
GPU_TEMPERATURE = gauge("gpu_temperature_celsius", "Temperature of the chip", "gpu")
GPU_TEMPERATURE_LIMIT = gauge("gpu_temperature_limit_celsius", "Temperature at which the card slows itself down", "gpu")
GPU_POWER = gauge("gpu_power_watts", "Power that the card draws", "gpu")
GPU_POWER_LIMIT = gauge("gpu_power_limit_watts", "Power that the card may draw", "gpu")
GPU_CLOCK = gauge("gpu_clock_hertz", "Clock rate, of the multiprocessors (sm) or of the memory", "gpu", "clock")

# --- ingest -----------------------------------------------------------------------------------------------------------
INGEST_FILES = counter(
    "ingest_files_total", "Files looked at, by outcome and, where there is one, reason", "outcome", "reason"
)
INGEST_LANGUAGES = counter("ingest_language_files_total", "Files accepted, by language", "language")
INGEST_REPOSITORIES = counter("ingest_repositories_total", "Visits to sources, by how they ended", "outcome")
INGEST_QUEUE = gauge("ingest_queue_repositories", "Sources in the clone queue, by state", "state")
INGEST_ROWS = counter("ingest_rows_total", "Rows stored")
INGEST_LAST_ROW_TIMESTAMP = gauge("ingest_last_row_timestamp_seconds", "When rows were last stored, Unix time")
INGEST_REFUSED_REPOSITORIES = counter(
    "ingest_refused_repositories_total", "Visits to sources that gave nothing, by reason", "reason"
)
INGEST_BYTES = counter("ingest_bytes_total", "Bytes of source files read and judged")
INGEST_STAGE_SECONDS = histogram("ingest_stage_seconds", "Duration of one stage of one visit", SHORT_S, "stage")
INGEST_WORKERS = gauge("ingest_workers", "Worker processes alive")

# --- crawler ----------------------------------------------------------------------------------------------------------
CRAWL_REQUESTS = counter("crawl_requests_total", "Requests to GitHub's API, by what came of them", "outcome")
CRAWL_LIMIT_REMAINING = gauge(
    "crawl_limit_remaining", "Requests left in GitHub's rate limits, over all tokens", "resource"
)
CRAWL_WAITED_SECONDS = counter(
    "crawl_waited_seconds_total", "Seconds that the crawler waited for a rate limit, or after a failure", "reason"
)
CRAWL_REPOSITORIES = counter("crawl_repositories_total", "Repositories found, by what became of them", "outcome")
CRAWL_WINDOWS = gauge("crawl_windows", "Questions to GitHub's search, by state", "state")

# --- store ------------------------------------------------------------------------------------------------------------
DATABASE_UP = gauge("database_up", "1 if the last statement reached the database, 0 if the database was away")
STORE_ROWS = gauge(
    "store_rows", "Stored items of this line, by state of the row accounting, at the last audit", "state"
)
ROWS_UNACCOUNTED = gauge("rows_unaccounted", "Stored items that are in no state or in two; anything but 0 is a fault")
AUDIT_TIMESTAMP = gauge("audit_timestamp_seconds", "When the row accounting was last computed, Unix time")
TABLE_ROWS = gauge("store_table_rows", "Rows of a table, as its last ANALYZE estimated them", "table")
TABLE_BYTES = gauge("store_table_bytes", "Bytes of a table on disk, without its indexes", "table")
INDEX_BYTES = gauge("store_index_bytes", "Bytes of a table's indexes on disk", "table")
DATABASE_BYTES = gauge("database_bytes", "Bytes of the whole database on disk")
DATABASE_CONNECTIONS = gauge("database_connections", "Connections to our database, by PostgreSQL's state", "state")
DATABASE_CONNECTIONS_MAX = gauge("database_connections_max", "Connections that the server takes")
DATABASE_OLDEST_TRANSACTION = gauge("database_oldest_transaction_seconds", "Age of the oldest open transaction")
DATABASE_TRANSACTIONS = counter("database_transactions_total", "Transactions of our database, by their end", "outcome")
DATABASE_DEADLOCKS = counter("database_deadlocks_total", "Deadlocks that PostgreSQL broke")
DATABASE_BLOCKS = counter("database_blocks_total", "Blocks of 8 KiB read, by where they were found", "found")
POOL_CONNECTIONS = gauge("database_pool_connections", "This process's connections, by state", "state")
POOL_SIZE = gauge("database_pool_size", "Connections that this process may hold")

# --- daemon -----------------------------------------------------------------------------------------------------------
TICKS = counter("daemon_ticks_total", "Ticks, by what came of them", "outcome")
TICKS_SKIPPED = counter("daemon_ticks_skipped_total", "Clock ticks that found the previous one still at work")
TICK_SECONDS = histogram(
    "daemon_tick_seconds", "Duration of a tick; one that trains lasts as long as the training", LONG_S
)
DECISIONS = counter("daemon_decisions_total", "Decisions to train or not, by verdict and reason", "verdict", "reason")
LAST_TICK_TIMESTAMP = gauge(
    "daemon_last_tick_timestamp_seconds", "When the loop last gave a sign of life (tick or its supervisor), Unix time"
)
LAST_SUCCESS_TIMESTAMP = gauge(
    "daemon_last_success_timestamp_seconds", "When a tick last ended without an error, Unix time"
)
CHECK_INTERVAL = gauge("daemon_check_interval_seconds", "Configured time between two ticks of an idle daemon")
SETTINGS_CHANGED = gauge(
    "daemon_settings_changed", "Settings in force that were changed at run time, over what was configured"
)
BACKLOG_ROWS = gauge("daemon_backlog_rows", "Rows that the next run could claim, counted up to a limit")
THRESHOLD_ROWS = gauge("daemon_threshold_rows", "Rows that the next run needs")
THRESHOLD_ETA_SECONDS = gauge(
    "daemon_threshold_eta_seconds",
    "Expected seconds to the threshold, at the pace of the last hour; 0 once it is reached, absent while nothing comes",
)
LEASE_HELD = gauge("daemon_lease_held", "1 while this process holds the line's lease")
PAUSED = gauge("daemon_paused", "1 while the operator has paused the line")
FAILURES_IN_A_ROW = gauge(
    "daemon_failures_in_a_row", "Failed runs since the last one that ended otherwise; a passed probe is none"
)

STATE_FILE_DAMAGED = counter(
    "daemon_state_file_damaged_total", "Times that the state file was found damaged, set aside and made anew"
)

# --- the run, live ----------------------------------------------------------------------------------------------------
RUN_NUMBER = gauge("run_number", "Number of the open run, or of the last one")
RUN_STATE = gauge("run_state", "1 for the state of the open run, 0 for the others; idle when none is open", "state")
RUNS = counter("runs_total", "Closed runs, by outcome", "outcome")
RUNS_FAILED = counter("runs_failed_total", "Failed runs, by reason", "reason")
RUN_SECONDS = histogram("run_seconds", "From claim to verdict, by outcome", LONG_S, "outcome")
TRAIN_PHASE = gauge("train_phase", "1 for what the child is doing; absent without a child", "phase")
TRAIN_STEP = gauge("train_step", "Optimizer steps done")
TRAIN_STEPS = gauge("train_steps", "Optimizer steps planned, counted after packing")
TRAIN_EPOCH = gauge("train_epoch", "Passes over the members, with its fraction")
TRAIN_LOSS = gauge("train_loss", "Mean cross-entropy of the last step, nats per completion token")
TRAIN_SMOOTHED_LOSS = gauge("train_smoothed_loss", "Mean of the last ten steps' losses, nats per completion token")
TRAIN_EVAL_LOSS = gauge("train_eval_loss", "Mean cross-entropy on the validation subsample, nats per completion token")
TRAIN_LEARNING_RATE = gauge("train_learning_rate", "Learning rate of the last step")
TRAIN_GRAD_NORM = gauge("train_grad_norm", "Norm of the last step's gradient before clipping")
TRAIN_TOKENS = gauge("train_tokens", "Tokens trained on in this run")
TRAIN_TOKENS_PER_SECOND = gauge("train_tokens_per_second", "Training throughput, tokens per second")
TRAIN_FLOPS = gauge("train_flops_per_second", "Operations per second that the model's arithmetic needs at this speed")
TRAIN_MFU = gauge(
    "train_mfu_ratio", "Model FLOPs utilisation: these operations over the device's dense bf16 peak, where it is known"
)
TRAIN_DATA_WAIT_SECONDS = gauge("train_data_wait_seconds", "Seconds of the last step that the device waited for data")
TRAIN_FIRST_STEP_SECONDS = gauge(
    "train_first_step_seconds", "Seconds from the claim of the last run to its first optimizer step"
)
TRAIN_MICRO_BATCH = gauge("train_micro_batch_sequences", "Sequences per forward pass; halved when memory runs out")
TRAIN_CHECKPOINTED_LAYERS = gauge(
    "train_checkpointed_layers", "Layers that are computed again in the backward pass, so that a step fits the memory"
)
TRAIN_PLANNED_BYTES = gauge(
    "train_planned_bytes", "Memory that the planner foresees for the peak of a step, with all the process needs"
)
TRAIN_PEAK_BYTES = gauge(
    "train_peak_bytes", "Most memory that the child has had so far: of tensors on a GPU, else resident"
)
TRAIN_ETA_SECONDS = gauge("train_eta_seconds", "Expected seconds to the last step")
TRAIN_PROGRESS_TIMESTAMP = gauge(
    "train_progress_timestamp_seconds", "When the child last advanced (a step, an evaluation, a new phase), Unix time"
)
TRAIN_ATTENTION_INFO = gauge("train_attention_info", "1, with the attention implementation as label", "implementation")
TRAIN_OOM_EVENTS = counter("train_oom_events_total", "Times that training ran out of device memory")
TRAIN_CHECKPOINT_FAILURES = counter(
    "train_checkpoint_failures_total", "Checkpoints that the disk did not take; training went on without them"
)
TRAIN_CHECKPOINT_SECONDS = histogram("train_checkpoint_seconds", "Duration of writing a checkpoint", SHORT_S)
TRAIN_CHECKPOINT_BYTES = gauge("train_checkpoint_bytes", "Bytes of the last checkpoint")
TRAIN_CHECKPOINT_TIMESTAMP = gauge(
    "train_checkpoint_timestamp_seconds", "When the last checkpoint was written, Unix time"
)

# --- versions ---------------------------------------------------------------------------------------------------------
VERSION_CURRENT = gauge("version_current", "Number of the current version; absent before the first")
VERSION_PROMOTED_TIMESTAMP = gauge("version_promoted_timestamp_seconds", "When it became current, Unix time")
VERSION_VERIFIED = gauge("version_verified", "1 if the current version's files match its manifest")
EVALUATION_BITS_PER_BYTE = gauge(
    "evaluation_bits_per_byte",
    "Bits per byte of held-out code in the last evaluation; the language `all` is the whole set",
    *("model", "eval_set", "language"),
)
GATE_VERDICTS = counter("gate_verdicts_total", "Verdicts on candidates, by reason", "verdict", "reason")
GATE_GAIN = gauge(
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
    (DATABASE_TRANSACTIONS, "outcome", ("commit", "rollback")),
    (DATABASE_BLOCKS, "found", ("cache", "disk")),
    (RUNS, "outcome", RUN_OUTCOMES),
    (RUNS_FAILED, "reason", FAILURE_REASONS),
    (LOOP_ERRORS, "loop", LOOPS),
):
    for _value in _values:  # a counter must be seen at 0, or rate() misses its first event
        _metric.labels(**{_label: _value})
