import sqlalchemy as sa

from schema.sizes import COUNTED, fetch_sizes
from schema.tables import Base


def test_a_look_tells_every_table_of_ours_the_connections_and_what_was_counted(conn: sa.Connection):
    sizes = fetch_sizes(conn)

    assert set(sizes.rows) == set(sizes.num_bytes) == set(sizes.index_bytes) == set(Base.metadata.tables)
    assert sizes.index_bytes["processed_files"] > 0
    assert sizes.database_bytes > sum(sizes.num_bytes.values())
    assert 1 <= sum(sizes.connections.values()) <= sizes.connections_max
    assert set(sizes.counted) == set(COUNTED)
    assert sizes.counted["xact_commit"] > 0
