"""Scoring again: new scores in rows and queues, while a run holds some of them, and from where it was broken off."""

import json
import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from click.testing import Result

from ingest.judge import judge_file
from ingest.rescoring import run_rescore
from schema.audit import audit
from schema.lines import open_line
from schema.runs import Limits
from sourcecode.limits import Limits as FileLimits
from sourcecode.scores import SCORER_VERSION
from tests.builders import add_repository, claim_source, finish, hold_line, make_file, open_run, save
from tests.ingest.helpers import SETTINGS, make_code

Fetch = Callable[..., list[tuple[object, ...]]]
OLD = SCORER_VERSION - 1


def score_of(code: str) -> float:
    found = judge_file("a.py", code.encode(), FileLimits(), is_executable=False).score
    assert found is not None
    return found


@pytest.fixture
def codes(engine: sa.Engine) -> list[str]:
    """Five stored files with old scores, in the order of their ids; a run has claimed the two that seemed best."""
    codes = [make_code(name) for name in "abcde"]
    with engine.begin() as conn:
        line = open_line(conn, name="qwen", base_model="base")
        add_repository(conn)
        claim = claim_source(conn, "/sources/old")
        files = [
            make_file(
                content=code, quality_score=10.0 * number, scorer_version=OLD, score_detail={"licence": "LICENSE"}
            )
            for number, code in enumerate(codes)
        ]
        save(conn, claim, *files)
        finish(conn, claim)
        assert open_run(conn, line.id, hold_line(conn), limits=Limits(0, 0, None, 2)) is not None
    return codes


def test_rows_and_queues_get_the_present_scores_and_the_ledger_stays(
    run: Callable[..., Result], codes: list[str], engine: sa.Engine, fetch: Fetch
) -> None:
    ledger = fetch("SELECT * FROM training_run_items ORDER BY ordinal")
    assert len(ledger) == 2
    report = json.loads(run("rescore", "--json").stdout)
    assert report == {"scorer_version": SCORER_VERSION, "rescored": 5, "failed": 0, "left": 0}
    rows = fetch("SELECT quality_score, scorer_version, score_detail FROM processed_files ORDER BY id")
    assert [(score, version) for score, version, _ in rows] == [(score_of(code), SCORER_VERSION) for code in codes]
    assert all(set(detail) == {"components", "details", "licence"} for _, _, detail in rows)  # type: ignore[call-overload]
    differs = "SELECT count(*) FROM training_queue q JOIN processed_files f ON f.id = q.item_id WHERE "
    assert fetch(differs + "q.score <> f.quality_score") == [(0,)]
    assert fetch(differs + "abs(q.rank - (f.quality_score - extract(epoch FROM f.created_at) / 86400)) > 0.001") == [
        (0,)
    ]
    assert fetch("SELECT * FROM training_run_items ORDER BY ordinal") == ledger
    with engine.begin() as conn:
        assert (audit(conn).rows_unaccounted, audit(conn).by_state["claimed"]) == (0, 2)
    assert "0 files scored" in run("rescore").stdout


def test_broken_off_it_goes_on_where_it_was(codes: list[str], engine: sa.Engine, fetch: Fetch) -> None:
    stop = threading.Event()
    assert run_rescore(engine, SETTINGS, stop=stop, limit=2)["left"] == 3
    stop.set()
    assert run_rescore(engine, SETTINGS, stop=stop) == {
        "scorer_version": SCORER_VERSION,
        "rescored": 0,
        "failed": 0,
        "left": 3,
    }
    stop.clear()
    assert run_rescore(engine, SETTINGS, stop=stop)["rescored"] == 3
    assert fetch("SELECT DISTINCT scorer_version FROM processed_files") == [(SCORER_VERSION,)]


def test_a_text_without_a_score_and_one_whose_content_is_gone_cost_nobody_else(
    codes: list[str], engine: sa.Engine, fetch: Fetch, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.begin() as conn:
        first, second = conn.execute(sa.text("SELECT id FROM processed_files ORDER BY id LIMIT 2")).scalars()
        conn.execute(sa.text("UPDATE processed_files SET content = NULL WHERE id = :id"), {"id": first})
        deep = "(" * 100_000 + ")" * 100_000
        conn.execute(sa.text("UPDATE processed_files SET content = :deep WHERE id = :id"), {"deep": deep, "id": second})
    report = run_rescore(engine, SETTINGS, stop=threading.Event())
    assert (report["rescored"], report["failed"], report["left"]) == (3, 1, 1)
    assert f"(file {second}) cannot be scored again" in caplog.text
    assert fetch("SELECT id FROM processed_files WHERE scorer_version = :old ORDER BY id", old=OLD) == [
        (first,),
        (second,),
    ]
