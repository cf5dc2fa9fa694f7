"""The hot queries use their indexes on tables of a hundred thousand rows and more: what PostgreSQL plans, not times."""

import datetime as dt
import functools
import json
import re
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from schema.backlog import Limits
from schema.caps import cap_items
from schema.crawl import claim_window
from schema.database import create_engine
from schema.files import RefusedFileRow, save_files
from schema.lines import open_line
from schema.near_duplicates import NearRule
from schema.overview import count_rows
from schema.repositories import claim_repository
from schema.retention import count_prunable
from schema.runs import count_members, count_pending, fetch_open_run
from schema.suspects import count_suspects
from sourcecode.near_duplicates import make_bands, similarity
from tests.builders import claim_source, hold_line, make_file, open_run

NUM_FILES = 120_000
LIMITS = Limits(min_score=70, min_chars=50, max_chars_total=50_000_000, max_rows=1000)
SEED = [
    """
    INSERT INTO repositories (source, kind, origin, name, state, priority)
    SELECT 'https://example.org/' || n, 'git', CASE WHEN n % 2 = 0 THEN 'crawler' ELSE 'operator' END, n::text,
        CASE WHEN n % 50 = 0 THEN 'queued' ELSE 'done' END, n % 7
    FROM generate_series(1, 100000) AS n
    """,
    f"""
    INSERT INTO processed_files (
        repository_id, file_path, blob_oid, language, content, content_sha256, num_chars, num_lines, quality_score,
        score_detail, scorer_version, owner, unit, split, created_at
    )
    SELECT (SELECT min(id) FROM repositories) + (n % 20 = 1)::int, 'file_' || n, n::text, 'python', '', md5(n::text),
        40 + n % 5000, 1, (n * 7919) % 101, '{{}}', 1, 'owner_' || n % 100, 'unit_' || n % 500,
        CASE WHEN n % 20 = 0 THEN 'test' ELSE 'train' END, now() - n * interval '1 minute'
    FROM generate_series(1, {NUM_FILES}) AS n
    """,
    "INSERT INTO near_dup_bands SELECT (random() - 0.5) * 1.8e19, n FROM generate_series(1, 100000) AS n",
    """
    INSERT INTO crawl_windows (plan, language, kind, root, query, box, max_pages, state)
    SELECT 'complete', (ARRAY['go', 'rust', 'dart'])[1 + n % 3], 'full', 'root', n::text, '{}', 10,
        CASE WHEN n % 100 = 0 THEN 'pending' ELSE 'done' END
    FROM generate_series(1, 20000) AS n
    """,
]
LARGE = {"repositories", "processed_files", "training_queue", "near_dup_bands", "crawl_windows"}


@pytest.fixture(scope="module")
def large_engine(empty_database, migrated_template):
    engine = create_engine(empty_database(migrated_template), application_name="tests")
    with engine.begin() as conn:
        for statement in SEED:
            conn.execute(sa.text(statement))
        open_line(conn, name="qwen", base_model="base")
        conn.execute(sa.text("ANALYZE"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        for table in ("training_queue", "processed_files"):
            vacuum(conn, table)
    yield engine
    engine.dispose()


def vacuum(conn, table):
    """Vacuum a table until no snapshot of others, such as autovacuum's, keeps a page from being visible to all."""
    done = sa.text("SELECT relallvisible = relpages FROM pg_class WHERE oid = CAST(:table AS regclass)")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        conn.execute(sa.text(f"VACUUM {table}"))
        if conn.execute(done, {"table": table}).scalar_one():
            return
    raise AssertionError(f"{table} should be visible to all")


@pytest.fixture
def conn(large_engine):
    with large_engine.connect() as conn:
        yield conn
        conn.rollback()


def explain(conn, pattern, call):
    """Return the plan's nodes of the one statement matching `pattern` that `call` executes, and its result."""
    ((nodes,), result) = explain_each(conn, pattern, call)
    return nodes, result


def explain_each(conn, pattern, call):
    """Return the plan's nodes of each statement matching `pattern` that `call` executes, and its result."""
    plans = []

    def look(conn, cursor, statement, parameters, context, executemany):
        if re.search(pattern, statement):
            with conn.connection.driver_connection.cursor() as own:
                own.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
                (plan,) = own.fetchone()
                plans.append(plan if isinstance(plan, list) else json.loads(plan))

    sa.event.listen(conn, "before_cursor_execute", look)
    result = call()
    sa.event.remove(conn, "before_cursor_execute", look)
    return [list(walk(top["Plan"])) for (top,) in plans], result


def walk(node):
    yield node
    for child in node.get("Plans", []):
        yield from walk(child)


def find(nodes, *kinds):
    return [node for node in nodes if node["Node Type"] in kinds]


def test_the_ready_check_reads_only_its_index_and_stops_early(conn):
    line = open_line(conn, name="qwen", base_model="base")
    nodes, num = explain(conn, r"count\(\*\)", lambda: count_pending(conn, line.id, LIMITS, at_most=1000))
    assert num == 1000
    (scan,) = find(nodes, "Index Only Scan", "Index Scan", "Seq Scan", "Bitmap Heap Scan")
    assert (scan["Node Type"], scan["Index Name"]) == ("Index Only Scan", "ix_training_queue_ready")
    assert find(nodes, "Limit")
    assert not find(nodes, "Sort", "Hash Join")


def test_rows_below_the_quality_threshold_cost_the_ready_check_nothing(conn):
    line = open_line(conn, name="qwen", base_model="base")
    too_high = replace(LIMITS, min_score=101)
    nodes, num = explain(conn, r"count\(\*\)", lambda: count_pending(conn, line.id, too_high, at_most=1000))
    assert num == 0
    (scan,) = find(nodes, "Index Only Scan", "Index Scan")
    assert scan["Index Name"] == "ix_training_queue_ready"
    assert "score >=" in scan["Index Cond"]


def test_asking_for_suspects_looks_at_quarantined_rows_alone(conn):
    line = open_line(conn, name="qwen", base_model="base")
    nodes, num = explain(conn, r"count\(\*\)", lambda: count_suspects(conn, line.id))
    assert num == 0
    assert {node["Index Name"] for node in nodes if "Index Name" in node} == {"ix_training_queue_quarantined"}
    assert not find(nodes, "Seq Scan")


def test_the_claim_walks_its_index_in_order_and_looks_up_only_what_it_takes(conn):
    line = open_line(conn, name="qwen", base_model="base")
    lease = hold_line(conn)
    nodes, run = explain(conn, "INSERT INTO training_run_items", lambda: open_run(conn, line.id, lease, limits=LIMITS))
    assert count_members(conn, run.id) == {"train": 1000}
    (locked,) = find(nodes, "LockRows")
    below = list(walk(locked))
    (scan,) = find(below, "Index Scan", "Index Only Scan", "Seq Scan", "Bitmap Heap Scan")
    assert (scan["Node Type"], scan["Index Name"]) == ("Index Scan", "ix_training_queue_pending")
    assert not find(below, "Sort"), "the best rows come in the index's order, not by sorting the whole queue"
    assert not find(nodes, "Seq Scan")


def test_the_next_repository_is_found_through_its_index(conn):
    nodes, claim = explain(conn, "UPDATE repositories", lambda: claim_repository(conn, lease_s=60))
    assert claim is not None
    names = {node["Index Name"] for node in find(nodes, "Index Scan", "Index Only Scan")}
    assert names == {"ix_repositories_claim", "pk_repositories"}
    assert not find(nodes, "Seq Scan", "Sort")


def test_the_open_run_is_found_through_its_index(conn):
    line = open_line(conn, name="qwen", base_model="base")
    conn.execute(
        sa.text("""
            INSERT INTO training_runs (uuid, line_id, number, kind, state, fence, config, members_digest)
            SELECT n::text, :line, n, 'adapter', 'promoted', 1, '{}', '' FROM generate_series(1, 5000) AS n
        """),
        {"line": line.id},
    )
    conn.execute(sa.text("ANALYZE training_runs"))
    nodes, run = explain(conn, "FROM training_runs", lambda: fetch_open_run(conn, line.id))
    assert run is None
    assert [node["Index Name"] for node in nodes] == ["uq_training_runs_open"]


def find_read_whole(nodes):
    return {node["Relation Name"] for node in find(nodes, "Seq Scan")} & LARGE


def test_the_owner_cap_reads_its_owners_rows_alone(conn):
    ids = conn.execute(sa.text("SELECT id FROM processed_files ORDER BY id LIMIT 200")).scalars().all()
    nodes, _ = explain(conn, "owner_cap", lambda: cap_items(conn, ids))
    assert not find_read_whole(nodes)
    scans = {node["Index Name"]: node["Index Cond"] for node in nodes if "Index Cond" in node}
    assert "item_id" in scans["ix_training_queue_item"]
    assert "capped_owner" in scans["ix_training_queue_capped"]
    assert "capped_owner" in scans["ix_training_queue_cap_reserve"]


def test_the_next_window_of_the_crawler_is_found_through_an_index(conn):
    now = dt.datetime.now(dt.UTC)
    claim = functools.partial(claim_window, conn, "complete", ["go", "rust"], lease_s=60, now=now)
    nodes, window = explain(conn, "UPDATE crawl_windows", claim)
    assert window is not None
    assert not find_read_whole(nodes)


def test_the_sums_of_ingest_status_are_read_from_an_index_alone(conn):
    nodes, counted = explain(conn, "FROM processed_files", lambda: count_rows(conn))
    assert sum(sum(splits.values()) for splits in counted["rows"].values()) == NUM_FILES
    names = {(node["Node Type"], node["Index Name"]) for node in nodes if "Index Name" in node}
    assert names == {("Index Only Scan", "ix_processed_files_counts")}


def test_what_could_be_pruned_is_counted_from_an_index_alone(conn):
    nodes, found = explain(conn, "FROM processed_files", lambda: count_prunable(conn, days=30))
    assert found == {}
    names = {
        (node["Node Type"], node["Index Name"]) for node in nodes if node.get("Relation Name") == "processed_files"
    }
    assert names == {("Index Only Scan", "ix_processed_files_prunable")}


def test_no_statement_of_a_batch_reads_a_large_table_whole(conn):
    claim = claim_source(conn)
    texts = [" ".join(f"word_{file}_{place}" for place in range(40)) for file in range(20)]
    rule = NearRule(threshold=0.7, similarity=similarity)
    old = [make_file(f"{n}.py", text, bands=make_bands(text)) for n, text in enumerate(texts)]
    save_files(conn, claim, old, near=rule)
    new = [make_file(f"{n + 10}.py", f"{text} more", bands=make_bands(f"{text} more")) for n, text in enumerate(texts)]
    refused = [RefusedFileRow(f"{n}.py", "oid", 1, "binary", None) for n in range(5)]
    save = functools.partial(save_files, conn, claim, new, refused, near=rule)
    plans, saved = explain_each(conn, r"^\s*(SELECT (?!pg_)|WITH|INSERT|UPDATE|DELETE)", save)
    assert (saved.num_superseded, sum(saved.num_excluded.values())) == (15, 5)
    assert len(plans) > 10
    assert set().union(*map(find_read_whole, plans)) == set()
