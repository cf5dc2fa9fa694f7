"""What a run is about to train on is never held out (I6), whatever else happens at that moment."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from schema.files import exclude_files, save_files
from schema.lines import open_line
from schema.near_duplicates import MAX_CANDIDATES, NearRule
from schema.runs import advance_run
from sourcecode.near_duplicates import make_bands, similarity
from tests.builders import claim_source, hold_line, make_file, open_run
from tests.waiting import wait_for

RULE = NearRule(threshold=0.7, similarity=similarity)
WORDS = [f"word_{place}" for place in range(300)]


def make(path, *, changed=None, **values):
    """Make a file of 300 words, of which one is another one."""
    words = [*WORDS]
    if changed is not None:
        words[changed] = f"other_{changed}"
    text = " ".join(words)
    return make_file(path, text, bands=make_bands(text), **values)


def save(conn, claim, *files):
    return save_files(conn, claim, files, near=RULE)


@pytest.fixture
def line(engine):
    with engine.begin() as conn:
        return open_line(conn, name="qwen", base_model="base")


def is_waiting(engine):
    with engine.begin() as conn:
        waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'transactionid')"
        return conn.execute(sa.text(waiting)).scalar_one()


def test_a_file_that_leaves_while_a_run_claims_it_is_still_compared_with_held_out_newcomers(engine, line):
    with engine.begin() as conn:
        claim = claim_source(conn)
        save(conn, claim, make("a.py"))
        file_id = conn.execute(sa.text("SELECT id FROM processed_files")).scalar_one()

    def leave():
        with engine.begin() as conn:
            exclude_files(conn, [file_id], "vanished")

    with ThreadPoolExecutor(1) as others:
        with engine.begin() as claimer:
            assert open_run(claimer, line.id, hold_line(claimer)) is not None
            leaving = others.submit(leave)
            wait_for(lambda: is_waiting(engine), "the file that leaves, waiting for the claim,")
        leaving.result()
    with engine.begin() as conn:
        assert save(conn, claim, make("b.py", changed=7, split="test")).num_excluded == {"near_trained": 1}


def test_what_was_trained_on_is_no_lesser_candidate_than_what_is_kept(engine, line):
    with engine.begin() as conn:
        claim, held_out = claim_source(conn), make("b.py", changed=7, split="test")
        save(conn, claim, make("a.py"))
        lease = hold_line(conn)
        advance_run(conn, open_run(conn, line.id, lease), lease=lease, to="promoted")
        exclude_files(conn, list(conn.execute(sa.text("SELECT id FROM processed_files")).scalars()), "vanished")
        # Nothing like it, but each shares a band, as many unlike texts may.
        numbers = [" ".join(map(str, range(first, first + 60))) for first in range(0, 100 * MAX_CANDIDATES, 100)]
        others = [make_file(None, text, bands=[held_out.bands[0], *make_bands(text)[1:]]) for text in numbers]
        assert save(conn, claim, *others).num_new == MAX_CANDIDATES
        assert save(conn, claim, held_out).num_excluded == {"near_trained": 1}
