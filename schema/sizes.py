"""How large the tables are and how busy the database is: one look, from PostgreSQL's own books, cheap at any size."""

from dataclasses import dataclass

import sqlalchemy as sa

from schema.tables import Base

_TABLES = sa.text(
    """
    SELECT c.relname AS name, greatest(c.reltuples, 0) AS rows, pg_table_size(c.oid) AS bytes,
           pg_indexes_size(c.oid) AS index_bytes
      FROM pg_class c
     WHERE c.relkind IN ('r', 'p') AND c.relnamespace = CAST(CAST(current_schema() AS text) AS regnamespace)
       AND c.relname = ANY (:names)
    """
)
_CONNECTIONS = sa.text(
    """
    SELECT coalesce(state, 'other'), count(*) FROM pg_stat_activity
     WHERE datname = current_database() GROUP BY 1
    """
)
_DATABASE = sa.text(
    """
    SELECT pg_database_size(current_database()) AS bytes,
           CAST(current_setting('max_connections') AS int) AS connections_max,
           (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()) AS oldest_s,
           xact_commit, xact_rollback, blks_hit, blks_read, deadlocks
      FROM pg_stat_database WHERE datname = current_database()
    """
)
COUNTED = ("xact_commit", "xact_rollback", "blks_hit", "blks_read", "deadlocks")


@dataclass(frozen=True, slots=True)
class Sizes:
    """What one look found. Rows are the planner's estimate."""

    rows: dict[str, float]
    num_bytes: dict[str, int]
    index_bytes: dict[str, int]
    database_bytes: int
    connections: dict[str, int]
    connections_max: int
    oldest_transaction_s: float
    counted: dict[str, int]
    """What PostgreSQL has counted since its statistics were last reset (COUNTED)."""


def fetch_sizes(conn: sa.Connection) -> Sizes:
    """Look at our tables' sizes, the connections to our database and its counters."""
    tables = conn.execute(_TABLES, {"names": list(Base.metadata.tables)}).all()
    connections = {state: num for state, num in conn.execute(_CONNECTIONS)}  # noqa: C416 - a Row is no pair to mypy
    database = conn.execute(_DATABASE).mappings().one()
    return Sizes(
        rows={table.name: float(table.rows) for table in tables},
        num_bytes={table.name: table.bytes for table in tables},
        index_bytes={table.name: table.index_bytes for table in tables},
        database_bytes=database["bytes"],
        connections=connections,
        connections_max=database["connections_max"],
        oldest_transaction_s=float(database["oldest_s"]),
        counted={name: database[name] for name in COUNTED},
    )
