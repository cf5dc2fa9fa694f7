"""Rows of unchanged bytes follow a new verdict: another text, another score, a refusal, a return."""

import dataclasses

import pytest
import sqlalchemy as sa

from schema.audit import audit
from schema.files import RefusedFileRow
from schema.judged_again import judge_again
from schema.lines import open_line
from schema.near_duplicates import NearRule
from schema.repositories import Claim
from tests.builders import ANY, claim_source, hold_line, make_file, open_run, save

NEAR = NearRule(threshold=0.7, similarity=lambda _, __: 0.0)
VERDICTS = {"licence", "secret"}
_ROWS = "SELECT file_path, content, excluded_reason FROM processed_files ORDER BY file_path"
_QUEUE = "SELECT q.score, q.num_chars, q.excluded_reason, q.run_id IS NOT NULL FROM training_queue q ORDER BY q.item_id"


@pytest.fixture
def line(conn: sa.Connection) -> int:
    return open_line(conn, name="qwen", base_model="base").id


@pytest.fixture
def claim(conn: sa.Connection, line: int) -> Claim:
    return claim_source(conn)


def refuse(file, reason):
    return RefusedFileRow(file.file_path, file.blob_oid, file.num_chars, reason, None)


def judge(conn, claim, *files, refused=()):
    save(conn, claim, *files)
    judge_again(conn, claim, files, refused, near=NEAR, verdicts=VERDICTS)


def rows(conn, query):
    return [tuple(row) for row in conn.execute(sa.text(query))]


def test_another_text_of_the_same_bytes_takes_the_place_of_the_one_that_waits(conn, claim):
    """Newer rules redact what older ones left."""
    file = make_file("a.py", "mail = 'bob@example.org'\n")
    judge(conn, claim, file)
    redacted = dataclasses.replace(
        file, content="mail = '<EMAIL>'\n", content_sha256="5a" * 32, num_chars=17, quality_score=60.0, scorer_version=2
    )
    judge(conn, claim, redacted)
    assert rows(conn, _ROWS) == [("a.py", "mail = '<EMAIL>'\n", None)]
    assert rows(conn, _QUEUE) == [(60.0, 17, None, False)]
    assert rows(conn, "SELECT content_sha256, scorer_version FROM processed_files") == [("5a" * 32, 2)]


def test_what_is_refused_now_leaves_and_comes_back_when_it_is_accepted_again(conn, claim):
    files = [make_file("a.py"), make_file("b.py")]
    judge(conn, claim, *files)
    judge(conn, claim, files[1], refused=[refuse(files[0], "secret")])
    assert [(path, reason) for path, _, reason in rows(conn, _ROWS)] == [("a.py", "secret"), ("b.py", None)]
    assert [reason for _, _, reason, _ in rows(conn, _QUEUE)] == ["secret", None]
    judge(conn, claim, *files)
    assert [reason for _, _, reason, _ in rows(conn, _QUEUE)] == [None, None]


def test_a_refusal_lets_a_copy_take_its_place(conn, claim):
    first, copy = make_file("a.py", "x = 1\n"), make_file("b.py", "x = 1\n")
    judge(conn, claim, first, copy)
    assert [reason for _, _, reason in rows(conn, _ROWS)] == [None, "duplicate"]
    judge(conn, claim, copy, refused=[refuse(first, "licence")])
    assert [reason for _, _, reason in rows(conn, _ROWS)] == ["licence", None]


def test_what_a_run_has_claimed_stays_claimed_and_is_marked(conn, claim, line):
    file = make_file("a.py")
    judge(conn, claim, file)
    assert open_run(conn, line, hold_line(conn), limits=ANY) is not None
    judge(conn, claim, refused=[refuse(file, "licence")])
    [(_, _, reason, is_claimed)] = rows(conn, _QUEUE)
    assert (reason, is_claimed) == ("licence", True)
    report = audit(conn)
    assert (report.rows_unaccounted, report.by_state["claimed"]) == (0, 1)


def test_judged_twice_alike_changes_nothing(conn, claim):
    files = [make_file("a.py"), make_file("b.py", score_detail={"structure": 1.5, "licence": "LICENSE"})]
    judge(conn, claim, *files)
    before = rows(conn, "SELECT *, xmin FROM processed_files ORDER BY id")
    judge(conn, claim, *files)
    assert rows(conn, "SELECT *, xmin FROM processed_files ORDER BY id") == before
