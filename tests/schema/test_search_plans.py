"""A search is answered by an index, for a rare word as for one that stands everywhere: plans, not times."""

import pytest
import sqlalchemy as sa

from schema.database import create_engine
from schema.search import search
from tests.schema.test_plans import explain_each, find

NUM_ENTRIES = 20_000
# Of 60 words a file has every fifth, and one that no other has; few are named so.
FILL = f"""
    INSERT INTO search_entries (kind, item_id, repository_id, score, words)
    SELECT 'file', n, n % 100, (n * 7919) % 1000 / 10.0, array_to_tsvector(
        ARRAY['kind/file', 'everywhere', 'rare' || n, CASE WHEN n % 50 = 0 THEN 'name/everywhere' ELSE 'x' END]
        || ARRAY(SELECT 'word' || (n + 5 * m) % 60 FROM generate_series(1, 12) AS m)
    )
    FROM generate_series(1, {NUM_ENTRIES}) AS n
"""
BY_WORDS, BY_SCORE = "ix_search_entries_words", "ix_search_entries_score"


@pytest.fixture(scope="module")
def engine_of_many(empty_database, migrated_template):
    engine = create_engine(empty_database(migrated_template), application_name="tests")
    with engine.begin() as conn:
        conn.execute(sa.text(FILL))
        conn.execute(sa.text("SELECT gin_clean_pending_list('ix_search_entries_words')"))
        conn.execute(sa.text("ANALYZE search_entries"))
    yield engine
    engine.dispose()


def indexes(nodes):
    """Return the indexes that a plan reads; whole tables are none."""
    assert not find(nodes, "Seq Scan")
    return {node["Index Name"] for node in nodes if "Index Name" in node}


@pytest.mark.parametrize(
    ("query", "index"),
    [("rare777", BY_WORDS), ("rare777 everywhere", BY_WORDS), ("everywhere", BY_SCORE), ("word7 everywhere", BY_SCORE)],
)
def test_a_page_reads_what_holds_the_words_or_the_best_until_enough_hold_them(query, index, engine_of_many):
    with engine_of_many.connect() as conn:
        plans, _ = explain_each(conn, "FROM search_entries", lambda: search(conn, query))

    assert indexes(plans[-1]) == {index}


def test_the_page_after_begins_where_the_one_before_ended(engine_of_many):
    with engine_of_many.connect() as conn:
        after = search(conn, "everywhere").next_cursor
        plans, _ = explain_each(conn, "FROM search_entries", lambda: search(conn, "everywhere", cursor=after))

    assert {frozenset(indexes(nodes)) for nodes in plans} == {frozenset({BY_SCORE})}
    assert not any(find(nodes, "Sort") for nodes in plans)
