import json

import pytest
import sqlalchemy as sa

from schema.audit import STATES, audit
from schema.files import exclude_files
from schema.lines import open_line
from schema.runs import Limits, advance_run, release_run
from tests.builders import add_files, add_repository, hold_line, open_run, quarantine

EMPTY = dict.fromkeys(STATES, 0)


@pytest.fixture
def trained(conn):
    """A line with a promoted run of two rows, an open run of one, two pending rows and one held out."""
    repository_id = add_repository(conn)
    line = open_line(conn, name="qwen", base_model="base")
    lease = hold_line(conn)
    add_files(conn, repository_id, 2)
    advance_run(conn, open_run(conn, line.id, lease), lease=lease, to="promoted")
    add_files(conn, repository_id, 3)
    open_run(conn, line.id, lease, limits=Limits(0, 0, None, 1), replay_share=1.0)
    add_files(conn, repository_id, 1, split="test")
    assert audit(conn).by_state == EMPTY | {"trained": 2, "claimed": 1, "pending": 2, "held_out": 1}
    return line


def run_sql(conn, statement):
    # Foreign keys are no obstacle to a plant.
    conn.execute(sa.text("SET LOCAL session_replication_role = replica"))
    assert conn.execute(sa.text(statement)).rowcount > 0


def test_before_there_is_a_line_every_file_is_pending(conn):
    add_files(conn, add_repository(conn), 3)
    report = audit(conn)
    assert (report.rows_total, report.rows_unaccounted, report.by_state) == (3, 0, EMPTY | {"pending": 3})


def test_every_state_is_counted_once(conn, trained):
    suspect, gone = conn.execute(
        sa.text("SELECT item_id FROM training_queue WHERE run_id IS NULL AND split = 'train' ORDER BY 1")
    ).scalars()
    quarantine(conn, trained.id, [suspect], "nan")
    exclude_files(conn, [gone], "vanished")
    report = audit(conn)
    states = {"trained": 2, "claimed": 1, "held_out": 1, "quarantined": 1, "excluded": 1, "pending": 0}
    assert (report.rows_total, report.rows_unaccounted, report.by_state) == (6, 0, states)
    assert report.by_line == {"qwen": states}


def test_each_line_has_its_own_accounts(conn, trained):
    open_line(conn, name="other", base_model="base")
    report = audit(conn)
    assert report.by_line["other"] == EMPTY | {"pending": 5, "held_out": 1}
    assert report.rows_total == 12


def test_released_rows_are_pending_again(conn):
    line = open_line(conn, name="qwen", base_model="base")
    add_files(conn, add_repository(conn), 2)
    lease = hold_line(conn)
    release_run(conn, open_run(conn, line.id, lease), lease=lease, to="held", reason="equal", waiting=True)
    assert audit(conn).by_state == EMPTY | {"pending": 2}


FIRST = "(SELECT min(item_id) FROM training_queue)"
CONSUMED = f"item_id = {FIRST} AND role = 'train'"
PLANTS = {
    "not_queued": f"DELETE FROM training_queue WHERE item_id = {FIRST} AND split = 'train' AND run_id IS NOT NULL",
    "no_such_item": f"UPDATE training_queue SET item_id = -1 WHERE item_id = {FIRST}",
    "claim_not_in_ledger": f"UPDATE training_run_items SET released_at = now() WHERE {CONSUMED}",
    "ledger_without_claim": f"UPDATE training_queue SET run_id = NULL WHERE item_id = {FIRST}",
    "claimed_by_two_runs": f"UPDATE training_queue SET run_id = run_id + 1 WHERE item_id = {FIRST}",
    "run_of_another_line": "UPDATE training_runs SET line_id = -1 WHERE state = 'claimed'",
    "not_released": "UPDATE training_runs SET state = 'rejected' WHERE state = 'claimed'",
    "content_changed": f"UPDATE processed_files SET content_sha256 = 'x' WHERE id = {FIRST}",
    "split_changed": "UPDATE processed_files SET split = 'train' WHERE split = 'test'",
    "held_out_consumed": f"""
        WITH file AS (UPDATE processed_files SET split = 'test' WHERE id = {FIRST})
        UPDATE training_queue SET split = 'test' WHERE item_id = {FIRST}
    """,
    "exclusion_differs": f"UPDATE processed_files SET excluded_reason = 'vanished' WHERE id = {FIRST}",
}


@pytest.mark.parametrize("problem", PLANTS)
def test_a_planted_inconsistency_is_named(problem, conn, trained):
    run_sql(conn, PLANTS[problem])
    report = audit(conn)
    assert report.problems[problem] == 1
    assert problem in {row["problem"] for row in report.unaccounted}
    assert report.rows_unaccounted == len(report.unaccounted) == sum(report.problems.values())
    assert report.rows_total == sum(report.by_state.values()) + report.rows_unaccounted


def test_the_named_rows_say_where_to_look(conn, trained):
    run_sql(conn, PLANTS["content_changed"])
    (row,) = audit(conn).unaccounted
    assert (row["line"], row["item_kind"], row["run"]) == ("qwen", "file", 1)
    assert row["file_path"].startswith("src/file_")
    assert row["repository"].startswith("/sources/")


def test_a_hundred_rows_are_named_and_all_are_counted(conn):
    open_line(conn, name="qwen", base_model="base")
    add_files(conn, add_repository(conn), 120)
    run_sql(conn, "DELETE FROM training_queue")
    report = audit(conn)
    assert (len(report.unaccounted), report.rows_unaccounted, report.problems) == (100, 120, {"not_queued": 120})


def test_the_report_is_json(conn, trained):
    report = json.loads(audit(conn).to_json())
    assert report["rows_total"] == 6
    assert (report["rows_unaccounted"], report["by_state"]["trained"]) == (0, 2)
