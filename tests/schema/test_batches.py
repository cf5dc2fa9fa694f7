"""A batch costs the database the same number of statements whatever its rows are like, and a bounded memory."""

import pytest
import sqlalchemy as sa

from schema import candidate_texts
from schema.files import RefusedFileRow, save_files
from schema.lines import open_line
from schema.near_duplicates import NearRule
from schema.repositories import add_source, claim_repository
from sourcecode.near_duplicates import make_bands, similarity
from tests.builders import claim_source, make_file

RULE = NearRule(threshold=0.7, similarity=similarity)


class Statements:
    """Counts what a connection executes; a list of parameters is a statement for each."""

    def __init__(self, conn):
        self.num = 0
        sa.event.listen(conn, "before_cursor_execute", self.count)

    def count(self, conn, cursor, statement, parameters, context, executemany):
        self.num += len(parameters) if executemany else 1


def make_text(cluster, copy=0, num_words=60):
    """Return a text of its cluster; copies differ in one word."""
    words = [f"w{cluster}_{place:03}" for place in range(num_words)]
    words[num_words // 2] += f"_{copy}" if copy else ""
    return " ".join(words)


def make(path, text, **values):
    return make_file(path, text, bands=make_bands(text), **values)


def claim_found(conn, name):
    add_source(conn, source=name, kind="git", origin="crawler", owner="somebody", name=name, priority=1_000_000)
    return claim_repository(conn, lease_s=600)


def save_every_kind(conn, num, start):
    """Save a batch with `num` files of each kind beside others stored before; return its statements and its outcome."""
    stored, refused = [], []
    claim, other = claim_found(conn, f"/found/{start}"), claim_source(conn)
    for n in range(start, start + num):
        stored.append(make(f"near_{n}.py", make_text(f"near {n}"), quality_score=50))
        stored.append(make(f"worse_{n}.py", make_text(f"worse {n}"), quality_score=50))
    old = [make(f"changed_{n}.py", make_text(f"old {n}")) for n in range(start, start + num)]
    save_files(conn, claim, [*old, *(make(f"gone_{one.file_path}", one.content + " more") for one in old)], near=RULE)
    copies = [make(f"exact_{one.file_path}", one.content) for one in old]
    copies += [make(f"similar_{one.file_path}", one.content + " even more") for one in old]
    save_files(conn, other, [*stored, *copies], near=RULE)
    batch = [make(one.file_path, make_text(f"new {number}")) for number, one in enumerate(old, start)]
    for n in range(start, start + num):
        batch.append(make(f"a_{n}.py", make_text(f"near {n}", 1), quality_score=40, owner=f"owner {n}"))
        batch.append(make(f"b_{n}.py", make_text(f"worse {n}", 1), quality_score=60, owner=f"owner {n}"))
        refused.append(RefusedFileRow(f"c_{n}.py", "oid", 1, "binary", None))
    statements = Statements(conn)
    saved = save_files(conn, claim, batch, refused, near=RULE)
    return statements.num, saved


def test_a_batch_of_any_size_takes_the_same_number_of_statements(conn):
    open_line(conn, name="qwen", base_model="base")
    few, saved = save_every_kind(conn, 2, start=100)
    assert (saved.num_new, saved.num_superseded, saved.num_excluded) == (4, 2, {"near_duplicate": 2})
    many, saved = save_every_kind(conn, 40, start=200)
    assert (saved.num_new, saved.num_superseded, saved.num_excluded) == (80, 40, {"near_duplicate": 40})
    assert many == few


@pytest.mark.parametrize(("max_chars", "num_blocks"), [(100_000, 1), (1_000, 10)])
def test_the_texts_of_candidates_come_in_blocks_that_fit_into_memory(max_chars, num_blocks, conn, monkeypatch):
    monkeypatch.setattr(candidate_texts, "MAX_CHARS", max_chars)
    open_line(conn, name="qwen", base_model="base")
    texts = [make_text(f"{cluster:02}", num_words=50) for cluster in range(20)]
    assert 333 < len(texts[0]) < 500
    save_files(conn, claim_source(conn), [make(f"{n}.py", text) for n, text in enumerate(texts)], near=RULE)
    blocks = []

    def look(conn, cursor, statement, parameters, context, executemany):
        if statement.startswith("SELECT id, content"):
            blocks.append(parameters["ids"])

    sa.event.listen(conn, "before_cursor_execute", look)
    files = [make(f"{n}.py", text + " more") for n, text in enumerate(texts)]
    assert save_files(conn, claim_source(conn), files, near=RULE).num_excluded == {"near_duplicate": 20}
    assert len(blocks) == num_blocks
    assert len({file_id for block in blocks for file_id in block}) == sum(map(len, blocks)) == 20
