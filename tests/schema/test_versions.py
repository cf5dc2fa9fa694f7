import pytest
import sqlalchemy as sa

from schema.decisions import fetch_decisions, record_decision
from schema.leases import StaleFence
from schema.lines import fetch_line, open_line
from schema.runs import advance_run
from schema.versions import (
    fetch_promotions,
    fetch_version,
    fetch_versions,
    next_version_number,
    promote,
    save_version,
    set_verdict,
)
from tests.builders import add_files, add_repository, hold_line, open_run


@pytest.fixture
def line(conn):
    return open_line(conn, name="qwen", base_model="base")


@pytest.fixture
def lease(conn):
    return hold_line(conn)


def publish(conn, line, lease, *, parent=None):
    add_files(conn, add_repository(conn), 1)
    run = open_run(conn, line.id, lease)
    number = next_version_number(conn, line.id)
    save_version(
        conn,
        line_id=line.id,
        number=number,
        run_id=run.id,
        parent=parent,
        manifest_digest="d",
        num_bytes=5,
        lease=lease,
    )
    advance_run(conn, run, lease=lease, to="promoted", version=number)
    return number


def make_current(conn, line, version, expected, **values):
    return promote(conn, line_id=line.id, version=version, expected=expected, actor="gate", reason="better", **values)


def test_versions_are_numbered_from_one_and_start_as_candidates(conn, line, lease):
    assert [publish(conn, line, lease), publish(conn, line, lease, parent=1)] == [1, 2]
    assert [(row["number"], row["parent"], row["verdict"]) for row in fetch_versions(conn, line.id)] == [
        (1, None, "candidate"),
        (2, 1, "candidate"),
    ]
    set_verdict(conn, line.id, 2, "held")
    assert fetch_version(conn, line.id, 2)["verdict"] == "held"
    assert fetch_version(conn, line.id, 3) is None


def test_a_version_is_promoted_only_over_the_one_it_was_judged_against(conn, line, lease):
    for _ in range(2):
        publish(conn, line, lease)
    assert make_current(conn, line, 1, None, lease=lease)
    assert not make_current(conn, line, 2, None)
    assert make_current(conn, line, 2, 1)
    assert make_current(conn, line, 1, 2)
    assert fetch_line(conn, "qwen").current_version == 1
    assert [(row["previous"], row["version"]) for row in fetch_promotions(conn, line.id)] == [(None, 1), (1, 2), (2, 1)]


def test_a_version_that_does_not_exist_is_not_promoted(conn, line):
    with pytest.raises(LookupError, match="no version 7"):
        make_current(conn, line, 7, None)


def test_a_stale_holder_neither_saves_nor_promotes(conn, line, lease):
    number = publish(conn, line, lease)
    conn.execute(sa.text("UPDATE leases SET fence = fence + 1"))
    with pytest.raises(StaleFence):
        make_current(conn, line, number, None, lease=lease)
    with pytest.raises(StaleFence):
        save_version(conn, line_id=line.id, number=2, run_id=1, parent=1, manifest_digest="d", num_bytes=5, lease=lease)


def test_equal_decisions_in_a_row_are_one_record_with_the_newest_inputs(conn, line):
    for pending in (1, 2):
        record_decision(conn, line.id, verdict="wait", reason="too_few_rows", inputs={"pending": pending})
    record_decision(conn, line.id, verdict="train", reason="threshold", inputs={"pending": 3})
    record_decision(conn, line.id, verdict="wait", reason="too_few_rows", inputs={"pending": 0})
    decisions = fetch_decisions(conn, line.id, limit=9)
    assert [(row["verdict"], row["repeated"], row["inputs"]["pending"]) for row in decisions] == [
        ("wait", 1, 0),
        ("train", 1, 3),
        ("wait", 2, 2),
    ]
    assert len(fetch_decisions(conn, line.id, limit=1)) == 1


def test_another_lines_decisions_are_its_own(conn, line):
    other = open_line(conn, name="other", base_model="base")
    for line_id in (line.id, other.id, line.id):
        record_decision(conn, line_id, verdict="wait", reason="paused", inputs={})
    assert [row["repeated"] for row in fetch_decisions(conn, line.id, limit=9)] == [2]
    assert [row["repeated"] for row in fetch_decisions(conn, other.id, limit=9)] == [1]
