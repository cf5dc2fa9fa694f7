import dataclasses
import threading

import pytest
import sqlalchemy as sa

from schema.audit import audit
from schema.files import RefusedFileRow, exclude_files, fetch_known_files, fetch_refusals, save_files
from schema.lines import open_line
from schema.repositories import StaleLease, retry_repository
from schema.runs import advance_run
from tests.builders import (
    add_files,
    add_repository,
    claim_source,
    fetch_file,
    finish,
    hold_line,
    make_file,
    open_run,
    save,
)


@pytest.fixture
def line(conn):
    return open_line(conn, name="qwen", base_model="base")


def fetch_rows(conn):
    """Map path and content to the excluded reason of the file and of its queue row."""
    query = """
        SELECT f.file_path, f.content, f.excluded_reason, q.excluded_reason
        FROM processed_files f LEFT JOIN training_queue q ON q.item_id = f.id
    """
    return {(path, content): (reason, queued) for path, content, reason, queued in conn.execute(sa.text(query))}


def train_on_everything(conn, line):
    lease = hold_line(conn)
    run = open_run(conn, line.id, lease)
    return advance_run(conn, run, lease=lease, to="promoted")


def test_a_file_is_stored_whole_and_queued_for_every_line(conn, line):
    other = open_line(conn, name="other", base_model="base")
    file = make_file("a.py", "x = 'ü'\n\t\\.", quality_score=71.5, score_detail={"naming": 3.5}, owner="me")
    claim = claim_source(conn)
    assert save(conn, claim, file).num_new == 1
    ((path, (blob_oid, file_id)),) = fetch_known_files(conn, claim.repository_id).items()
    row = fetch_file(conn, file_id)
    assert (path, blob_oid) == (file.file_path, file.blob_oid)
    assert {name: row[name] for name in file.__slots__} == {name: getattr(file, name) for name in file.__slots__}
    queued = conn.execute(sa.text("SELECT line_id, score, num_chars, owner FROM training_queue ORDER BY 1")).all()
    assert queued == [(line.id, 71.5, file.num_chars, "me"), (other.id, 71.5, file.num_chars, "me")]


def test_saving_the_same_files_again_adds_nothing(conn, line):
    claim = claim_source(conn)
    files = [make_file() for _ in range(5)]
    assert save(conn, claim, *files).num_new == 5
    before = fetch_rows(conn)
    again = save(conn, claim, *files)
    assert (again.num_new, again.num_known, again.num_superseded, again.num_excluded) == (0, 5, 0, {})
    assert fetch_rows(conn) == before


def test_an_empty_batch_is_fine(conn, line):
    assert save(conn, claim_source(conn)).num_new == 0


def test_a_worker_that_lost_its_lease_saves_nothing(conn, line):
    claim = claim_source(conn)
    retry_repository(conn, claim, "timeout", delay_s=0, max_attempts=5)
    with pytest.raises(StaleLease):
        save(conn, claim, make_file())
    assert fetch_rows(conn) == {}


def test_a_changed_file_supersedes_its_past_and_keeps_unit_and_split(conn, line):
    claim = claim_source(conn)
    save(conn, claim, make_file("a.py", "old", unit="one", split="test"))
    saved = save(conn, claim, make_file("a.py", "new", unit="two", split="train"))
    assert (saved.num_new, saved.num_superseded) == (1, 1)
    assert fetch_rows(conn) == {("a.py", "old"): ("superseded",) * 2, ("a.py", "new"): (None, None)}
    row = fetch_file(conn, fetch_known_files(conn, claim.repository_id)["a.py"][1])
    assert (row["unit"], row["split"]) == ("one", "test")


def test_a_file_that_is_changed_back_is_pending_again(conn, line):
    claim = claim_source(conn)
    for content in ("old", "new", "old"):
        save(conn, claim, make_file("a.py", content))
    assert fetch_rows(conn) == {("a.py", "old"): (None, None), ("a.py", "new"): ("superseded",) * 2}
    assert audit(conn).by_state["pending"] == 1


def test_a_file_that_is_changed_back_has_the_judgement_of_now(conn, line):
    claim = claim_source(conn)
    old = make_file("a.py", "mail = 'me@my.org'\n")
    save(conn, claim, old)
    save(conn, claim, make_file("a.py", "new"))
    text = "mail = '<EMAIL>'\n# two\n"
    judgement = {"quality_score": 33.0, "score_detail": {"naming": 1}, "scorer_version": 9, "licence": "GPL-3.0-only"}
    measures = {"language": "rust", "content_sha256": "5a" * 32, "num_chars": len(text), "num_lines": 2}
    back = dataclasses.replace(old, content=text, **judgement, **measures)
    save(conn, claim, back)
    row = fetch_file(conn, fetch_known_files(conn, claim.repository_id)["a.py"][1])
    assert {name: row[name] for name in back.__slots__} == {name: getattr(back, name) for name in back.__slots__}
    pending = "SELECT score, num_chars, language FROM training_queue WHERE excluded_reason IS NULL"
    assert conn.execute(sa.text(pending)).all() == [(33.0, len(text), "rust")]


def test_a_superseded_file_that_was_trained_on_stays_trained(conn, line):
    claim = claim_source(conn)
    save(conn, claim, make_file("a.py", "old"))
    train_on_everything(conn, line)
    save(conn, claim, make_file("a.py", "new"))
    states = audit(conn).by_state
    assert (states["trained"], states["pending"], states["excluded"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("stored_split", "new_split", "reason"),
    [
        ("train", "train", "duplicate"),
        ("test", "test", "duplicate"),
        ("test", "train", "near_held_out"),
        ("validation", "train", "near_held_out"),
        ("validation", "test", "near_held_out"),
        ("train", "test", "near_trained"),
    ],
)
@pytest.mark.parametrize("batches", [1, 2])
def test_the_first_placement_of_a_content_wins(batches, stored_split, new_split, reason, conn, line):
    first, second = make_file("a.py", "same", split=stored_split), make_file("b.py", "same", split=new_split)
    claim = claim_source(conn)
    if batches == 1:
        saved = save(conn, claim, first, second)
    else:
        save(conn, claim, first)
        saved = save(conn, claim_source(conn), second)
    assert saved.num_excluded == {reason: 1}
    assert fetch_rows(conn) == {("a.py", "same"): (None, None), ("b.py", "same"): (reason, reason)}
    twins = "SELECT near_dup_of = (SELECT min(id) FROM processed_files) FROM processed_files WHERE file_path = 'b.py'"
    assert conn.execute(sa.text(twins)).scalar_one()


def test_the_past_of_another_file_is_no_duplicate(conn, line):
    claim = claim_source(conn)
    save(conn, claim, make_file("a.py", "old"))
    saved = save(conn, claim, make_file("a.py", "new"), make_file("b.py", "old"))
    assert saved.num_new == 2
    assert saved.num_excluded == {}


def test_a_content_that_was_trained_on_is_never_held_out_even_when_its_file_has_gone(conn, line):
    claim = claim_source(conn)
    save(conn, claim, make_file("a.py", "old"))
    train_on_everything(conn, line)
    exclude_files(conn, [fetch_known_files(conn, claim.repository_id)["a.py"][1]], "vanished")
    assert save(conn, claim, make_file("b.py", "old", split="test")).num_excluded == {"near_trained": 1}


def test_a_duplicate_takes_the_place_of_the_file_that_vanishes(conn, line):
    claim = claim_source(conn)
    save(conn, claim, *(make_file(path, "same") for path in ("a.py", "b.py", "c.py")))
    known = fetch_known_files(conn, claim.repository_id)
    assert exclude_files(conn, [known["a.py"][1]], "vanished") == 1
    rows = {path: reasons for (path, _), reasons in fetch_rows(conn).items()}
    assert rows == {"a.py": ("vanished",) * 2, "b.py": (None, None), "c.py": ("duplicate",) * 2}
    assert fetch_file(conn, known["c.py"][1])["near_dup_of"] == known["b.py"][1]


def test_a_vanished_file_is_not_known_any_more_and_excluded_once(conn, line):
    repository_id = add_repository(conn)
    first, second = add_files(conn, repository_id, 2)
    assert exclude_files(conn, [first], "vanished") == 1
    assert exclude_files(conn, [first], "vanished") == 0
    assert [file_id for _, file_id in fetch_known_files(conn, repository_id).values()] == [second]
    assert audit(conn).by_state["excluded"] == 1


def test_a_refused_file_is_known_until_it_is_accepted(conn, line):
    claim = claim_source(conn)
    refusal = RefusedFileRow("a.py", "1" * 40, 9_000_000, "too_large", "9 MB")
    save_files(conn, claim, [], [refusal])
    assert fetch_refusals(conn, claim.repository_id) == {"a.py": ("1" * 40, "too_large")}
    file = make_file("a.py")
    save(conn, claim, file)
    assert fetch_known_files(conn, claim.repository_id)["a.py"][0] == file.blob_oid
    assert fetch_refusals(conn, claim.repository_id) == {}


def test_a_stored_file_that_is_refused_in_its_new_version_is_superseded(conn, line):
    claim = claim_source(conn)
    save(conn, claim, make_file("a.py", "old"))
    assert save_files(conn, claim, [], [RefusedFileRow("a.py", "2" * 40, 5, "minified", None)]).num_superseded == 1
    assert fetch_known_files(conn, claim.repository_id) == {}
    assert fetch_refusals(conn, claim.repository_id) == {"a.py": ("2" * 40, "minified")}


@pytest.mark.parametrize(
    "values",
    [{"content": "a\0b"}, {"content": "a\ud800b"}, {"path": "a\0.py"}, {"score_detail": {"text": "\0"}}],
    ids=["NUL", "surrogate", "path", "detail"],
)
def test_a_file_that_cannot_be_stored_is_refused_and_costs_its_batch_nothing(values, conn, line):
    claim = claim_source(conn)
    files = [make_file() for _ in range(7)]
    saved = save(conn, claim, *files[:3], make_file(**values), *files[3:])
    assert (saved.num_new, saved.num_refused) == (7, {"encoding": 1})
    assert conn.execute(sa.text("SELECT reason FROM refused_files")).scalars().all() == ["encoding"]


def test_two_workers_with_the_same_contents_place_each_of_them_once(engine):
    with engine.begin() as conn:
        open_line(conn, name="qwen", base_model="base")
        claims = [claim_source(conn), claim_source(conn)]
    contents = [f"content {number}" for number in range(200)]
    barrier = threading.Barrier(2, timeout=60)

    def work(claim, split, order):
        for start in range(0, 200, 20):
            files = [make_file(content=content, split=split) for content in order[start : start + 20]]
            barrier.wait()
            with engine.begin() as conn:
                save_files(conn, claim, files)

    workers = [
        threading.Thread(target=work, args=(claims[0], "train", contents)),
        threading.Thread(target=work, args=(claims[1], "test", contents[::-1])),
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with engine.begin() as conn:
        placed = "SELECT count(*), count(DISTINCT content_sha256) FROM processed_files WHERE excluded_reason IS NULL"
        assert conn.execute(sa.text(placed)).one() == (200, 200)
        assert audit(conn).rows_unaccounted == 0


def test_a_visit_can_be_saved_in_several_batches_of_one_transaction(conn, line):
    claim = claim_source(conn)
    assert [save(conn, claim, make_file()).num_new for _ in range(3)] == [1, 1, 1]
    finish(conn, claim)
    assert audit(conn).by_state["pending"] == 3
