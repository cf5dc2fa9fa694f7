"""A database that the first release filled is brought to this code's revision with all that is in it."""

import pytest
import sqlalchemy as sa
from alembic import command

from schema.audit import audit
from schema.bands import fetch_unindexed, save_bands
from schema.database import _config, check_revision, create_engine, upgrade
from schema.files import save_files
from schema.jobs import fetch_jobs
from schema.lines import open_line
from schema.near_duplicates import NearRule
from schema.runs import fetch_open_run
from sourcecode.near_duplicates import make_bands, similarity
from tests.builders import claim_source, hold_line, make_file, open_run

# Two sources of 300 files each, one found by the crawler; of every split, kept and not, trained on and not.
FILL = """
    INSERT INTO lines (name, base_model) VALUES ('qwen', 'base');
    INSERT INTO repositories (source, kind, origin, host, owner, name, state, visited_at, stars)
    VALUES ('https://github.com/a/b', 'git', 'crawler', 'github.com', 'a', 'b', 'done', now(), 50),
        ('/sources/c', 'folder', 'operator', NULL, NULL, 'c', 'done', now(), NULL);
    INSERT INTO processed_files (repository_id, file_path, blob_oid, language, content, content_sha256, num_chars,
        num_lines, quality_score, score_detail, scorer_version, owner, unit, split, near_dup_of, excluded_reason)
    SELECT r.id, n || '.py', md5(r.id || ' ' || n), 'python', text.words, encode(sha256(text.words::bytea), 'hex'),
        length(text.words), 1, n % 100, '{}', 1, coalesce(r.owner, 'c'), r.name || n % 9,
        CASE n % 10 WHEN 0 THEN 'test' WHEN 1 THEN 'validation' ELSE 'train' END,
        CASE WHEN n % 10 = 2 THEN 1 END,
        CASE n % 10 WHEN 2 THEN 'duplicate' WHEN 3 THEN 'superseded' WHEN 4 THEN 'vanished' END
    FROM repositories r CROSS JOIN generate_series(1, 300) AS n CROSS JOIN LATERAL (
        SELECT string_agg('word_' || r.id || '_' || n || '_' || place, ' ') AS words
        FROM generate_series(1, 40) AS place
    ) text;
    INSERT INTO training_runs (uuid, line_id, number, kind, state, fence, config, members_digest)
    VALUES ('u', 1, 1, 'adapter', 'promoted', 1, '{}', 'digest');
    INSERT INTO training_queue (line_id, item_kind, item_id, score, num_chars, language, owner, unit, split, rank,
        excluded_reason, run_id)
    SELECT 1, 'file', id, quality_score, num_chars, language, owner, unit, split, quality_score, excluded_reason,
        CASE WHEN split = 'train' AND id % 7 = 0 THEN 1 END
    FROM processed_files;
    INSERT INTO training_run_items (run_id, ordinal, line_id, item_kind, item_id, role, content_sha256)
    SELECT 1, row_number() OVER (), 1, 'file', f.id, 'train', f.content_sha256
    FROM training_queue q JOIN processed_files f ON f.id = q.item_id WHERE q.run_id = 1;
    INSERT INTO versions (line_id, number, run_id, verdict, manifest_digest, num_bytes)
    VALUES (1, 1, 1, 'promoted', 'd', 1);
    INSERT INTO leases (name, holder, fence, until) VALUES ('line:qwen', 'somebody', 1, now() - interval '1 day');
"""
_COUNT_OF_OWNER = sa.text(
    """
    SELECT count(*) FROM training_queue
    WHERE owner = 'a' AND split = 'train' AND (run_id IS NOT NULL OR excluded_reason IS NULL)
    """
)
_TRAINED_AND_GONE = sa.text(
    """
    SELECT f.content FROM processed_files f JOIN training_queue q ON q.item_id = f.id
    WHERE q.run_id IS NOT NULL AND f.excluded_reason = 'vanished' LIMIT 1
    """
)
FILLED = ("lines", "repositories", "processed_files", "training_runs", "training_queue", "training_run_items")
_RULE = NearRule(threshold=0.7, similarity=similarity)


@pytest.fixture
def filled(empty_database):
    engine = create_engine(empty_database(), application_name="tests")
    with engine.begin() as conn:
        command.upgrade(_config(conn), "0001")
        conn.execute(sa.text(FILL))
    yield engine
    engine.dispose()


def read(engine, names):
    """Read all rows of the tables, as far as their columns are those of `names`."""
    with engine.begin() as conn:
        return {
            table: sorted(map(repr, conn.execute(sa.text(f"SELECT {', '.join(columns)} FROM {table}"))))
            for table, columns in names.items()
        }


def test_everything_is_there_accounted_for_and_goes_on(filled):
    inspector = sa.inspect(filled)
    names = {table: [f'"{column["name"]}"' for column in inspector.get_columns(table)] for table in FILLED}
    names["lines"].remove('"request"')  # a job since then, or the wish to cancel one run
    before = read(filled, names)
    upgrade(filled)
    check_revision(filled)
    assert read(filled, names) == before
    with filled.begin() as conn:
        open_line(conn, name="qwen", base_model="base", max_owner_rows=99)
        assert audit(conn).rows_unaccounted == 0
        assert conn.execute(_COUNT_OF_OWNER).scalar_one() == 99
        while found := fetch_unindexed(conn, after=0, version=1, limit=100):
            save_bands(conn, {file_id: make_bands(text) for file_id, text in found.items()}, version=1)
        trained = (
            "SELECT content FROM processed_files WHERE split = 'train' AND id % 7 = 0 AND excluded_reason = 'vanished'"
        )
        text = conn.execute(sa.text(f"{trained} LIMIT 1")).scalar_one() + " more"
        near = make_file("near.py", text, split="test", bands=make_bands(text))
        assert save_files(conn, claim_source(conn), [near, make_file()], near=_RULE).num_excluded == {"near_trained": 1}
        assert open_run(conn, 1, hold_line(conn)) is not None
        assert audit(conn).rows_unaccounted == 0


@pytest.mark.parametrize(("wish", "jobs", "is_cancelled"), [("train", ["queued"], False), ("cancel", [], True)])
def test_what_a_line_was_asked_for_is_not_forgotten(wish, jobs, is_cancelled, filled):
    with filled.begin() as conn:
        conn.execute(sa.text("UPDATE lines SET request = :wish"), {"wish": wish})
        conn.execute(
            sa.text(
                "INSERT INTO training_runs (uuid, line_id, number, kind, state, fence, config, members_digest) "
                "VALUES ('open', 1, 2, 'adapter', 'training', 1, '{}', 'digest')"
            )
        )
    upgrade(filled)
    with filled.connect() as conn:
        assert [job.state for job in fetch_jobs(conn, 1, limit=9)] == jobs
        assert (fetch_open_run(conn, 1).cancel_requested_at is not None) == is_cancelled
