"""Near-duplicates among everything stored (I6), with the real bands and the real similarity."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from schema.audit import audit
from schema.bands import fetch_unindexed, save_bands
from schema.files import exclude_files, save_files
from schema.lines import open_line
from schema.near_duplicates import NearRule, Neighbourhood
from schema.runs import advance_run
from sourcecode.near_duplicates import make_bands, similarity
from tests.builders import claim_source, fetch_file, hold_line, make_file, open_run, quarantine
from tests.schema.test_plans import explain

RULE = NearRule(threshold=0.7, similarity=similarity)
NUM_WORDS = 300


@pytest.fixture
def line(conn):
    return open_line(conn, name="qwen", base_model="base")


def make_text(cluster, copy=0):
    """Return a text of its cluster; copies differ in a word each and are 0.93 similar: the bands find them all."""
    words = [f"word_{cluster}_{place}" for place in range(NUM_WORDS)]
    if copy:
        place = random.Random(f"{cluster} {copy}").randrange(NUM_WORDS)
        words[place] = f"other_{cluster}_{copy}"
    return " ".join(words)


def make(path, text, **values):
    return make_file(path, text, bands=make_bands(text), **values)


def save(conn, claim, *files, near=RULE):
    return save_files(conn, claim, files, near=near)


def fetch_states(conn):
    """Map the path of each file to the reason why it is excluded, which its queue row repeats, and whose copy it is."""
    query = """
        SELECT f.file_path, f.excluded_reason, of.file_path, q.excluded_reason
        FROM processed_files f LEFT JOIN processed_files of ON of.id = f.near_dup_of
        LEFT JOIN training_queue q ON q.item_id = f.id
    """
    rows = conn.execute(sa.text(query)).all()
    assert all(reason == queued for _, reason, _, queued in rows)
    assert audit(conn).rows_unaccounted == 0
    return {path: (reason, of) for path, reason, of, _ in rows}


def find_id(conn, path):
    return conn.execute(sa.text("SELECT id FROM processed_files WHERE file_path = :path"), {"path": path}).scalar_one()


def train_on_everything(conn, line):
    lease = hold_line(conn)
    return advance_run(conn, open_run(conn, line.id, lease), lease=lease, to="promoted")


@pytest.mark.parametrize(
    ("stored_split", "new_split", "reason"),
    [
        ("train", "train", "near_duplicate"),
        ("test", "test", "near_duplicate"),
        ("test", "train", "near_held_out"),
        ("validation", "train", "near_held_out"),
        ("validation", "test", "near_held_out"),
        ("train", "test", "near_trained"),
    ],
)
@pytest.mark.parametrize("batches", [1, 2])
def test_the_first_placement_of_near_copies_wins(batches, stored_split, new_split, reason, conn, line):
    first = make("a.py", make_text(1), split=stored_split)
    second = make("b.py", make_text(1, 1), split=new_split)
    claim = claim_source(conn)
    if batches == 1:
        saved = save(conn, claim, first, second)
    else:
        save(conn, claim, first)
        saved = save(conn, claim_source(conn), second)
    assert saved.num_excluded == {reason: 1}
    assert fetch_states(conn) == {"a.py": (None, None), "b.py": (reason, "a.py")}


def test_a_near_duplicate_is_stored_whole_with_its_match_and_its_similarity(conn, line):
    one, other = make_text(1), make_text(1, 1)
    save(conn, claim_source(conn), make("a.py", one))
    save(conn, claim_source(conn), make("b.py", other))
    row = fetch_file(conn, find_id(conn, "b.py"))
    assert (row["content"], row["bands"], row["near_dup_of"]) == (other, make_bands(other), find_id(conn, "a.py"))
    assert row["near_dup_similarity"] == similarity(one, other) > 0.7


def test_a_candidate_that_is_not_similar_enough_is_kept(conn, line):
    strict = NearRule(threshold=0.99, similarity=similarity)
    saved = save(conn, claim_source(conn), make("a.py", make_text(1)), make("b.py", make_text(1, 1)), near=strict)
    assert saved.num_new == 2


def test_files_without_bands_are_only_compared_exactly(conn, line):
    files = [make_file("a.py", "import os\n"), make_file("b.py", "import os\n\n"), make_file("c.py", "import os\n")]
    assert save(conn, claim_source(conn), *files, near=None).num_excluded == {"duplicate": 1}
    with pytest.raises(ValueError, match="files with bands need a rule"):
        save(conn, claim_source(conn), make("d.py", make_text(1)), near=None)


def test_a_copy_of_a_near_duplicate_is_compared_with_what_is_kept(conn, line):
    kept, near = make("a.py", make_text(1)), make_text(1, 1)
    saved = save(
        conn, claim_source(conn), kept, make("b.py", near), make("c.py", near), make("d.py", near, split="test")
    )
    assert saved.num_excluded == {"near_duplicate": 2, "near_trained": 1}
    assert {of for _, of in fetch_states(conn).values()} == {None, "a.py"}


@pytest.mark.parametrize("batches", [1, 2])
def test_a_better_copy_takes_the_place_of_a_pending_one(batches, conn, line):
    worse = [make("a.py", make_text(1), quality_score=50), make("same.py", make_text(1), quality_score=50)]
    worse.append(make("near.py", make_text(1, 2), quality_score=40))
    better = make("b.py", make_text(1, 1), quality_score=60)
    claim = claim_source(conn)
    if batches == 1:
        assert save(conn, claim, *worse, better).num_new == 1
    else:
        save(conn, claim, *worse)
        assert save(conn, claim_source(conn), better).num_new == 1
    copies = dict.fromkeys(("a.py", "same.py", "near.py"), ("near_duplicate", "b.py"))
    assert fetch_states(conn) == copies | {"b.py": (None, None)}
    assert audit(conn).by_state["pending"] == 1


@pytest.mark.parametrize("why", ["claimed", "quarantined", "held out", "as good"])
def test_a_better_copy_does_not_replace_what_is_not_pending_or_not_worse(why, conn, line):
    split = "test" if why == "held out" else "train"
    save(conn, claim_source(conn), make("a.py", make_text(1), quality_score=50, split=split))
    if why == "claimed":
        open_run(conn, line.id, hold_line(conn))
    elif why == "quarantined":
        quarantine(conn, line.id, [find_id(conn, "a.py")], "suspect")
    score = 50 if why == "as good" else 60
    saved = save(conn, claim_source(conn), make("b.py", make_text(1, 1), quality_score=score, split=split))
    assert saved.num_excluded == {"near_duplicate": 1}
    assert fetch_states(conn)["a.py"] == (None, None)


def test_a_row_that_is_being_claimed_does_not_give_way_and_nobody_waits(engine):
    with engine.begin() as conn:
        open_line(conn, name="qwen", base_model="base")
        save(conn, claim_source(conn), make("a.py", make_text(1), quality_score=50))
    with engine.begin() as claimer:
        claimer.execute(sa.text("SELECT FROM training_queue FOR UPDATE"))
        with engine.begin() as conn:
            conn.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
            saved = save(conn, claim_source(conn), make("b.py", make_text(1, 1), quality_score=60))
    assert saved.num_excluded == {"near_duplicate": 1}


def test_a_changed_file_is_not_compared_with_its_own_past_but_with_others(conn, line):
    claim, other = claim_source(conn), claim_source(conn)
    save(conn, claim, make("a.py", make_text(1)))
    save(conn, other, make("b.py", make_text(2)))
    train_on_everything(conn, line)
    measured = []
    rule = NearRule(threshold=0.7, similarity=lambda one, other: measured.append(other) or similarity(one, other))
    assert save(conn, claim, make("a.py", make_text(1, 1)), near=rule).num_new == 1
    assert measured == []
    assert save(conn, claim, make("a.py", make_text(2, 1)), near=rule).num_excluded == {"near_duplicate": 1}
    assert measured == [make_text(2)]


def test_what_was_trained_on_is_never_held_out_even_when_its_file_and_its_text_have_gone(conn, line):
    claim = claim_source(conn)
    save(conn, claim, make("a.py", make_text(1)))
    train_on_everything(conn, line)
    exclude_files(conn, [find_id(conn, "a.py")], "vanished")
    conn.execute(sa.text("UPDATE processed_files SET content = NULL"))
    assert save(conn, claim, make("b.py", make_text(1, 1), split="test")).num_excluded == {"near_trained": 1}
    assert 0.7 < fetch_file(conn, find_id(conn, "b.py"))["near_dup_similarity"] <= 1
    assert save(conn, claim, make("c.py", make_text(1, 2))).num_new == 1


@pytest.mark.parametrize(
    ("num_shared", "threshold", "excluded"),
    [(0, 0.7, {}), (1, 0.7, {"near_trained": 1}), (1, 0.75, {}), (2, 0.75, {"near_trained": 1})],
)
def test_without_the_trained_text_the_shared_bands_tell_on_the_safe_side(num_shared, threshold, excluded, conn, line):
    claim = claim_source(conn)
    save_files(conn, claim, [make_file("a.py", "one", bands=list(range(14)))], near=RULE)
    train_on_everything(conn, line)
    exclude_files(conn, [find_id(conn, "a.py")], "vanished")
    conn.execute(sa.text("UPDATE processed_files SET content = NULL"))
    bands = list(range(100, 114 - num_shared)) + list(range(num_shared))
    newcomer = make_file("b.py", "other", bands=bands, split="test")
    rule = NearRule(threshold=threshold, similarity=similarity)
    assert save_files(conn, claim, [newcomer], near=rule).num_excluded == excluded


def test_the_best_near_duplicate_takes_the_place_of_the_file_that_vanishes(conn, line):
    claim = claim_source(conn)
    scores = {"a.py": 90, "b.py": 50, "c.py": 70, "d.py": 60}
    files = [make(path, make_text(1, n), quality_score=score) for n, (path, score) in enumerate(scores.items())]
    save(conn, claim, *files)
    exclude_files(conn, [find_id(conn, "a.py")], "vanished")
    rest = {"b.py": ("near_duplicate", "c.py"), "d.py": ("near_duplicate", "c.py")}
    assert fetch_states(conn) == rest | {"a.py": ("vanished", None), "c.py": (None, None)}
    # The heir is compared with newcomers, the one that has gone is not.
    assert save(conn, claim, make("e.py", make_text(1, 9), quality_score=10)).num_excluded == {"near_duplicate": 1}
    exclude_files(conn, [find_id(conn, "c.py")], "vanished")
    assert fetch_states(conn)["d.py"] == (None, None)


def test_an_exact_copy_goes_before_a_better_near_duplicate(conn, line):
    claim = claim_source(conn)
    save(conn, claim, make("a.py", make_text(1), quality_score=50), make("b.py", make_text(1), quality_score=50))
    save(conn, claim, make("c.py", make_text(1, 1), quality_score=50))
    conn.execute(sa.text("UPDATE processed_files SET quality_score = 99 WHERE file_path = 'c.py'"))
    exclude_files(conn, [find_id(conn, "a.py")], "vanished")
    states = fetch_states(conn)
    assert (states["b.py"], states["c.py"]) == ((None, None), ("near_duplicate", "b.py"))


@pytest.mark.parametrize("why", ["trained", "dropped", "near another"])
def test_a_near_duplicate_stays_one_where_its_text_was(why, conn, line):
    claim = claim_source(conn)
    save(conn, claim, make("a.py", make_text(1)), make("b.py", make_text(1, 1)))
    if why == "trained":
        train_on_everything(conn, line)
    elif why == "dropped":
        conn.execute(sa.text("UPDATE processed_files SET content = NULL WHERE excluded_reason IS NOT NULL"))
    else:
        # This is kept, and shares its first band.
        save(conn, claim, make_file("c.py", make_text(3), bands=[make_bands(make_text(1, 1))[0]]))
    exclude_files(conn, [find_id(conn, "a.py")], "vanished")
    assert fetch_states(conn)["b.py"][0] == "near_duplicate"


def make_collection():
    """Make 16 clusters of 1 to 8 copies in three sources, of different scores."""
    chance = random.Random(1)
    files = []
    for cluster in range(16):
        for copy in range(1 + cluster % 8):
            text = make_text(cluster, copy if copy != 3 else 0)  # the fourth is an exact copy of the first
            score = chance.uniform(1, 99) if copy else 50
            files.append((copy % 3, make(f"{cluster}/{copy}.py", text, quality_score=50 if copy == 3 else score)))
    return files


@pytest.mark.parametrize("batch_rows", [1, 7, 200])
def test_what_is_kept_depends_neither_on_the_order_nor_on_the_batches(batch_rows, conn, line):
    files = make_collection()
    best = {}
    for _, file in files:
        cluster = file.file_path.partition("/")[0]
        best[cluster] = max(best.get(cluster, (0, "")), (file.quality_score, file.content))
    random.Random(batch_rows).shuffle(files)
    claims = [claim_source(conn) for _ in range(3)]
    for source, claim in enumerate(claims):
        own = [file for number, file in files if number == source]
        for start in range(0, len(own), batch_rows):
            save(conn, claim, *own[start : start + batch_rows])
    kept = "SELECT split_part(file_path, '/', 1), content FROM processed_files WHERE excluded_reason IS NULL"
    states = fetch_states(conn)
    assert dict(conn.execute(sa.text(kept)).all()) == {cluster: content for cluster, (_, content) in best.items()}
    assert sum(reason is None for reason, _ in states.values()) == len(best) == 16
    assert len(states) == len(files)
    assert {states[of][0] for _, of in states.values() if of} == {None}


def test_four_writers_of_near_copies_keep_one_of_each(engine):
    with engine.begin() as conn:
        open_line(conn, name="qwen", base_model="base")
        claims = [claim_source(conn) for _ in range(4)]
    together = threading.Barrier(4, timeout=60)

    def write(writer):
        chance = random.Random(writer)
        for start in range(0, 40, 10):
            clusters = chance.sample(range(start, start + 10), 10)
            split = "test" if writer == 3 else "train"
            files = [
                make(f"{cluster}.py", make_text(cluster, writer), split=split, quality_score=chance.uniform(1, 99))
                for cluster in clusters
            ]
            together.wait()
            with engine.begin() as conn:
                save(conn, claims[writer], *files)

    with ThreadPoolExecutor(4) as people:
        list(people.map(write, range(4)))
    with engine.begin() as conn:
        kept = "SELECT file_path, count(*) FROM processed_files WHERE excluded_reason IS NULL GROUP BY 1"
        assert dict(conn.execute(sa.text(kept)).all()) == {f"{cluster}.py": 1 for cluster in range(40)}
        assert len(conn.execute(sa.text("SELECT FROM processed_files")).all()) == 160
        assert audit(conn).rows_unaccounted == 0


@pytest.mark.parametrize("bands_version", [None, 0])
def test_files_stored_before_there_were_bands_are_found_once_they_are_indexed(bands_version, conn, line):
    claim = claim_source(conn)
    old_bands = [] if bands_version is None else make_bands(make_text(7))
    save(conn, claim, make_file("a.py", make_text(1), bands=old_bands, bands_version=bands_version))
    save(conn, claim, make("gone.py", make_text(2)))
    train_on_everything(conn, line)
    exclude_files(conn, [find_id(conn, "gone.py")], "vanished")
    while found := fetch_unindexed(conn, after=0, version=2, limit=1):
        save_bands(conn, {file_id: make_bands(text) for file_id, text in found.items()}, version=2)
    assert conn.execute(sa.text("SELECT count(*) FROM near_dup_bands")).scalar_one() == 2 * 14
    assert fetch_unindexed(conn, after=0, version=2, limit=10) == {}
    later = claim_source(conn)
    files = [make("b.py", make_text(1, 1)), make("c.py", make_text(2, 1), split="test"), make("d.py", make_text(7))]
    assert save(conn, later, *files).num_excluded == {"near_duplicate": 1, "near_trained": 1}


def test_each_pair_is_measured_once_and_few_pairs_of_a_large_cluster(conn, line):
    measured = []

    def measure(one, other):
        measured.append((one, other))
        return similarity(one, other)

    rule = NearRule(threshold=0.7, similarity=measure)
    claim = claim_source(conn)
    for start in range(0, 300, 100):
        save(conn, claim, *(make(f"{n}.py", make_text(1, n)) for n in range(start, start + 100)), near=rule)
    assert len(measured) == len(set(measured)) == 299


def test_candidates_of_one_file_are_limited_where_nothing_is_similar(conn, line):
    measured = []
    rule = NearRule(threshold=0.7, similarity=lambda one, other: measured.append(one) or 0.0)
    files = [make(f"{n}.py", make_text(1, n)) for n in range(120)]
    for start in range(0, 120, 40):
        assert save(conn, claim_source(conn), *files[start : start + 40], near=rule).num_new == 40
    # Without limits all 120 x 119 / 2 pairs: sixteen stored candidates for each, and sixteen of its batch.
    assert len(measured) <= 120 * 32


def test_the_bands_are_looked_up_through_their_index(conn, line):
    seed = "INSERT INTO near_dup_bands SELECT n * 7919, n FROM generate_series(1, 50000) AS n"
    conn.execute(sa.text(seed))
    conn.execute(sa.text("ANALYZE near_dup_bands"))
    claim, files = claim_source(conn), [make(f"{n}.py", make_text(n)) for n in range(3)]
    save(conn, claim, *files)
    neighbourhood = Neighbourhood(conn, claim.repository_id, files, RULE)
    nodes, _ = explain(conn, "near_dup_bands", neighbourhood.look)
    (scan,) = [node for node in nodes if node.get("Relation Name") == "near_dup_bands"]
    assert (scan["Node Type"], scan["Index Name"]) == ("Index Only Scan", "pk_near_dup_bands")
    assert "hash" in scan["Index Cond"]
