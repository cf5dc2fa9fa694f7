"""Database: the accounting of the rows, sizes, connections, and how busy PostgreSQL is."""

from deploy.grafana.source.boards import dashboard, row
from deploy.grafana.source.panels import UP_OR_DOWN, Json, bad_above, bars, graph, red_above, stat

_DAEMON = '{job="codelupe-daemon"}'
_RATE = "[5m]"  # the daemon looks four times a minute


def make() -> Json:
    """Return the dashboard."""
    return dashboard(
        "database",
        "Database",
        "Where every row is, how large the tables are, who is connected and how busy PostgreSQL is.",
        row("Rows", *_rows()),
        row("Sizes", *_sizes()),
        row("Connections and work", *_work()),
    )


def _rows() -> list[Json]:
    return [
        stat(
            "Database",
            "Whether the last statement of every process reached it.",
            'min(codelupe_database_up{job=~"codelupe-.+"})',
            "none",
            "DatabaseDown",
            words=UP_OR_DOWN,
        ),
        stat(
            "Rows unaccounted",
            "Rows in no state, or in two. Anything but 0 is a fault of ours.",
            f"max(codelupe_rows_unaccounted{_DAEMON})",
            "none",
            "RowsUnaccounted",
            steps=red_above(1),
        ),
        stat(
            "Last audit",
            "Age of the row accounting; it is made each hour and after each run.",
            f"time() - min(codelupe_audit_timestamp_seconds{_DAEMON})",
            "s",
            "AuditStale",
            steps=bad_above(3 * 3600),
        ),
        stat(
            "Size",
            "Bytes of the whole database on disk.",
            f"max(codelupe_database_bytes{_DAEMON})",
            "bytes",
            "DiskFilling",
        ),
        stat(
            "Oldest transaction",
            "Age of the oldest open transaction. An alert at four hours.",
            f"max(codelupe_database_oldest_transaction_seconds{_DAEMON})",
            "s",
            "TransactionTooOld",
            steps=bad_above(3600, 4 * 3600),
        ),
        stat(
            "State files set aside",
            "Damaged state files made anew, within the time that is shown.",
            f"sum(increase(codelupe_daemon_state_file_damaged_total{_DAEMON}[$__range]))",
            "none",
            "StateFileDamaged",
            steps=bad_above(1),
            decimals=0,
        ),
        graph(
            "Rows by state",
            "Every stored row of the line is in exactly one of these; held-out ones are never trained on.",
            [(f"max by (state) (codelupe_store_rows{_DAEMON})", "{{state}}")],
            "short",
            "RowsUnaccounted",
            stacked=True,
            width=24,
            least=0,
        ),
    ]


def _sizes() -> list[Json]:
    return [
        bars(
            "Bytes of tables",
            "The eight largest, without their indexes.",
            f"topk(8, max by (table) (codelupe_store_table_bytes{_DAEMON}))",
            "{{table}}",
            "bytes",
            "DiskFilling",
        ),
        bars(
            "Bytes of indexes",
            "The eight largest, all indexes of a table together.",
            f"topk(8, max by (table) (codelupe_store_index_bytes{_DAEMON}))",
            "{{table}}",
            "bytes",
            "DiskFilling",
        ),
        bars(
            "Rows of tables",
            "The eight longest, as PostgreSQL's last ANALYZE estimated them; 0 before the first.",
            f"topk(8, max by (table) (codelupe_store_table_rows{_DAEMON}))",
            "{{table}}",
            "short",
            "DiskFilling",
        ),
    ]


def _work() -> list[Json]:
    found = f'rate(codelupe_database_blocks_total{{job="codelupe-daemon", found="cache"}}{_RATE})'
    blocks = f"sum without (found) (rate(codelupe_database_blocks_total{_DAEMON}{_RATE}))"
    return [
        graph(
            "Connections",
            "To our database by PostgreSQL's state, and how many it takes.",
            [
                (f"max by (state) (codelupe_database_connections{_DAEMON})", "{{state}}"),
                (f"max(codelupe_database_connections_max{_DAEMON})", "at most"),
            ],
            "short",
            "ConnectionsExhausted",
            least=0,
        ),
        graph(
            "The daemon's pool",
            "Connections in use, and how many it may hold.",
            [
                (f"codelupe_database_pool_connections{_DAEMON}", "{{state}}"),
                (f"codelupe_database_pool_size{_DAEMON}", "at most"),
            ],
            "short",
            "PoolExhausted",
            least=0,
        ),
        graph(
            "Transactions",
            "A second, by their end. A few roll-backs are leases that others held.",
            [(f"sum by (outcome) (rate(codelupe_database_transactions_total{_DAEMON}{_RATE}))", "{{outcome}}")],
            "ops",
            "LoopFailing",
            least=0,
        ),
        graph(
            "Found in the cache",
            "Share of the blocks that PostgreSQL did not have to read from the disk.",
            [(f"sum without (found) ({found}) / ({blocks} > 0)", "{{instance}}")],
            "percentunit",
            "DatabaseDown",
            least=0,
            most=1,
            width=12,
        ),
        graph(
            "Deadlocks",
            "Broken by PostgreSQL within the hour before; the loser tries again.",
            [(f"sum(increase(codelupe_database_deadlocks_total{_DAEMON}[1h]))", "deadlocks")],
            "short",
            "LoopFailing",
            least=0,
            width=12,
        ),
    ]
