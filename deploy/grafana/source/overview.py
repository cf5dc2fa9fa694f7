"""Overview: is it healthy, what is it doing, what has changed."""

from deploy.grafana.source.boards import dashboard, row
from deploy.grafana.source.panels import UP_OR_DOWN, YES_OR_NO, Json, graph, red_above, rise, stat, states, table

_DAEMON = '{job="codelupe-daemon"}'
_FIRING = 'count(count by (alertname) (ALERTS{alertstate="firing"})) or vector(0)'


def make() -> Json:
    """Return the dashboard."""
    return dashboard("overview", "Overview", "Is it healthy, what is it doing, what has changed?", *_rows())


def _rows() -> list[list[Json]]:
    return [
        row("Is it healthy?", *_health()),
        row("What is it doing?", *_work()),
        row("What has changed?", *_changes()),
    ]


def _health() -> list[Json]:
    return [
        stat(
            "Alerts",
            "How many alerts fire now. Prometheus' and Alertmanager's pages name them.",
            _FIRING,
            "none",
            "Reading the dashboards",
            steps=red_above(1),
        ),
        stat(
            "Daemon",
            "Whether every daemon answers Prometheus.",
            'min(up{job="codelupe-daemon"})',
            "none",
            "DaemonDown",
            words=UP_OR_DOWN,
        ),
        stat(
            "Ingest",
            "Whether any ingest worker answers Prometheus.",
            'max(up{job="codelupe-ingest"})',
            "none",
            "IngestDown",
            words=UP_OR_DOWN,
        ),
        stat(
            "Database",
            "Whether the last statement of every process reached PostgreSQL.",
            'min(codelupe_database_up{job=~"codelupe-.+"})',
            "none",
            "DatabaseDown",
            words=UP_OR_DOWN,
        ),
        stat(
            "Rows unaccounted",
            "Stored rows that are in no state, or in two. Anything but 0 is a fault of ours.",
            f"max(codelupe_rows_unaccounted{_DAEMON})",
            "none",
            "RowsUnaccounted",
            steps=red_above(1),
        ),
        stat(
            "Version is whole",
            "Whether the files of the version in service match its manifest.",
            f"min(codelupe_version_verified{_DAEMON})",
            "none",
            "VersionUnverified",
            words=YES_OR_NO,
            nothing="no version yet",
        ),
    ]


def _work() -> list[Json]:
    return [
        states(
            "State of the run",
            "What the open run is at; idle while there is none.",
            f"max by (state) (codelupe_run_state{_DAEMON})",
            "{{state}}",
            "BacklogNotTrained",
            width=12,
            height=8,
        ),
        graph(
            "Backlog and threshold",
            "Rows that the next run could take, counted no further than what it needs, and what it needs.",
            [
                (f"codelupe_daemon_backlog_rows{_DAEMON}", "backlog {{instance}}"),
                (f"codelupe_daemon_threshold_rows{_DAEMON}", "threshold {{instance}}"),
            ],
            "short",
            "BacklogNotTrained",
            width=12,
            least=0,
        ),
        stat(
            "Progress",
            "Optimizer steps done, of those of the open run.",
            f"max(codelupe_train_step{_DAEMON} / codelupe_train_steps{_DAEMON})",
            "percentunit",
            "TrainerStalled",
            nothing="not training",
            decimals=0,
        ),
        stat(
            "Left",
            "Expected time to the last step of the open run.",
            f"max(codelupe_train_eta_seconds{_DAEMON})",
            "s",
            "TrainerStalled",
            nothing="not training",
        ),
        stat(
            "Threshold in",
            "Expected time to the threshold, at the pace of the last hour; 0 s once it is reached.",
            f"max(codelupe_daemon_threshold_eta_seconds{_DAEMON})",
            "s",
            "IngestStarved",
            nothing="nothing comes",
        ),
        stat(
            "Last sign of life",
            "Age of the daemon's last tick, or of its supervisor's while a run is trained.",
            f"time() - min(codelupe_daemon_last_tick_timestamp_seconds{_DAEMON})",
            "s",
            "DaemonTickStale",
            steps=red_above(960),
        ),
        stat(
            "Last success",
            "Age of the last tick that ended without an error. A run of hours is one tick.",
            f"time() - min(codelupe_daemon_last_success_timestamp_seconds{_DAEMON})",
            "s",
            "LoopFailing",
        ),
        stat(
            "Failures in a row",
            "Failed runs since the last one that did not fail.",
            f"max(codelupe_daemon_failures_in_a_row{_DAEMON})",
            "none",
            "RunsFailing",
            steps=red_above(3),
        ),
    ]


def _changes() -> list[Json]:
    decisions = rise(f"codelupe_daemon_decisions_total{_DAEMON}", "5m")
    return [
        stat(
            "Version",
            "Number of the version in service.",
            f"max(codelupe_version_current{_DAEMON})",
            "none",
            "NothingPromoted",
            nothing="none yet",
            height=6,
        ),
        stat(
            "In service for",
            "Age of the last promotion or roll-back.",
            f"time() - max(codelupe_version_promoted_timestamp_seconds{_DAEMON})",
            "s",
            "NothingPromoted",
            nothing="none yet",
            height=6,
        ),
        table(
            "What runs",
            "Version, Python and profile of every process.",
            "codelupe_build_info",
            ("job", "instance", "version", "python", "profile", "line"),
            "DaemonDown",
            width=16,
        ),
        graph(
            "Runs by outcome",
            "Runs that ended within the hour before.",
            [(f"sum by (outcome) (increase(codelupe_runs_total{_DAEMON}[1h]))", "{{outcome}}")],
            "short",
            "NothingPromoted",
            least=0,
        ),
        graph(
            "Decisions",
            "What the ticks decided within five minutes, and why; `codelupe why` has the inputs.",
            [
                (
                    f"sum by (verdict, reason) ({decisions})",
                    "{{verdict}}: {{reason}}",
                )
            ],
            "short",
            "BacklogNotTrained",
            least=0,
        ),
        graph(
            "Errors and restarts",
            "Exceptions caught at the edge of a loop, and processes that began anew, within the hour before.",
            [
                ("sum by (loop) (increase(codelupe_loop_errors_total[1h]))", "errors: {{loop}}"),
                ('sum by (job) (changes(process_start_time_seconds{job=~"codelupe-.+"}[1h]))', "restarts of {{job}}"),
            ],
            "short",
            "LoopFailing",
            least=0,
        ),
    ]
