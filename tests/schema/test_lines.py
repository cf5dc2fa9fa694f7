import threading

import pytest
import sqlalchemy as sa

from schema.audit import audit
from schema.lines import (
    BaseChanged,
    back_off,
    fetch_line,
    open_line,
    set_paused,
    set_tokenizer,
)
from schema.runs import count_pending
from tests.builders import ANY, add_files, add_repository, claim_source, make_file, save


def test_a_new_line_finds_every_stored_item_pending(conn):
    repository_id = add_repository(conn)
    add_files(conn, repository_id, 5)
    add_files(conn, repository_id, 2, split="test")
    line = open_line(conn, name="qwen", base_model="base")
    assert count_pending(conn, line.id, ANY, at_most=100) == 5
    assert audit(conn).by_state["held_out"] == 2


def test_opening_a_line_again_returns_it_as_it_is(conn):
    line = open_line(conn, name="qwen", base_model="base")
    add_files(conn, add_repository(conn), 1)
    assert open_line(conn, name="qwen", base_model="base") == line
    assert audit(conn).rows_total == 1
    assert fetch_line(conn, "other") is None


def test_another_base_under_the_same_name_is_refused(conn):
    open_line(conn, name="qwen", base_model="small")
    with pytest.raises(BaseChanged, match="line 'qwen' trains small, not large: choose another name"):
        open_line(conn, name="qwen", base_model="large")


def test_a_line_opened_while_a_worker_saves_misses_no_file(engine):
    opened = threading.Event()

    def open_in_between():
        with engine.begin() as conn:
            open_line(conn, name="qwen", base_model="base")
        opened.set()

    opener = threading.Thread(target=open_in_between)
    with engine.begin() as conn:
        save(conn, claim_source(conn), make_file(), make_file())
        opener.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        with engine.connect() as watcher:
            while watcher.execute(sa.text(waiting)).scalar_one() == 0:
                assert not opened.is_set()
    opener.join()
    with engine.begin() as conn:
        report = audit(conn)
    assert (report.rows_unaccounted, report.by_state["pending"]) == (0, 2)


def test_pauses_and_the_tokenizer_are_remembered(conn):
    line = open_line(conn, name="qwen", base_model="base")
    set_paused(conn, line.id, True)
    set_tokenizer(conn, line.id, "digest", "revision")
    changed = fetch_line(conn, "qwen")
    assert changed.paused
    assert (changed.tokenizer_digest, changed.base_revision) == ("digest", "revision")


def test_failures_in_a_row_are_counted_until_all_is_well(conn):
    line = open_line(conn, name="qwen", base_model="base")
    for _ in range(2):
        back_off(conn, line.id, 3600)
    failed = fetch_line(conn, "qwen")
    assert failed.num_failures == 2
    assert 3590 < (failed.not_before - line.not_before).total_seconds() < 3660
    back_off(conn, line.id, None)
    assert fetch_line(conn, "qwen").num_failures == 0
