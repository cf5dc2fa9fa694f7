"""What PostgreSQL says of itself, as metrics: sizes, connections, and what it counted."""

from collections.abc import Mapping

from monitoring import metrics

_COUNTED_BY_SERVER = {
    "xact_commit": metrics.DATABASE_TRANSACTIONS.labels("commit"),
    "xact_rollback": metrics.DATABASE_TRANSACTIONS.labels("rollback"),
    "blks_hit": metrics.DATABASE_BLOCKS.labels("cache"),
    "blks_read": metrics.DATABASE_BLOCKS.labels("disk"),
    "deadlocks": metrics.DATABASE_DEADLOCKS,
}


def record_pool(in_use: int, size: int) -> None:
    """Set how many connections of this process are in use, of how many it may hold."""
    metrics.POOL_SIZE.set(size)
    metrics.POOL_CONNECTIONS.labels("in_use").set(in_use)
    metrics.POOL_CONNECTIONS.labels("idle").set(max(0, size - in_use))


def record_tables(rows: Mapping[str, float], num_bytes: Mapping[str, int], index_bytes: Mapping[str, int]) -> None:
    """Set each table's estimated rows, its bytes and those of its indexes; the tables are our own."""
    for gauge, values in (
        (metrics.TABLE_ROWS, rows),
        (metrics.TABLE_BYTES, num_bytes),
        (metrics.INDEX_BYTES, index_bytes),
    ):
        gauge.clear()
        for table, value in values.items():
            gauge.labels(table).set(value)


def record_database_sizes(
    num_bytes: int, connections: Mapping[str, int], connections_max: int, oldest_s: float
) -> None:
    """Set the database's bytes, its connections by state and at most, and the age of its oldest transaction."""
    metrics.DATABASE_BYTES.set(num_bytes)
    metrics.DATABASE_CONNECTIONS.clear()
    for state, count in connections.items():
        metrics.DATABASE_CONNECTIONS.labels(state).set(count)
    metrics.DATABASE_CONNECTIONS_MAX.set(connections_max)
    metrics.DATABASE_OLDEST_TRANSACTION.set(oldest_s)


def record_database_activity(before: Mapping[str, int], now: Mapping[str, int]) -> None:
    """Add what PostgreSQL counted between two looks at it; after a reset of its statistics, all since then."""
    for name, counter in _COUNTED_BY_SERVER.items():
        risen = now[name] - before[name]
        counter.inc(risen if risen >= 0 else now[name])
