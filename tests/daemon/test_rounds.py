"""Whole rounds: a real PostgreSQL, a real tiny Qwen2 in real NF4, the real child; only the corpus is small."""

import json

import pytest

from daemon.publish import verify_folder
from daemon.tick import tick
from schema.audit import audit
from schema.decisions import fetch_decisions
from schema.lines import fetch_line
from schema.runs import count_members, fetch_runs
from schema.versions import fetch_versions
from tests.daemon.conftest import store_standard_library


def tick_until_idle(ctx) -> None:
    for _ in range(20):
        if not tick(ctx):
            return
    raise AssertionError("twenty ticks did not end the work")


def test_two_rounds_from_stored_files_to_published_versions(ctx, engine):
    store_standard_library(engine, first=0, num=100, source="first")
    tick_until_idle(ctx)

    with engine.connect() as conn:
        line = fetch_line(conn, "micro")
        runs = {run.number: run for run in fetch_runs(conn, line.id, limit=10)}
    assert runs[0].kind == "base"
    assert runs[0].state == "promoted"
    assert runs[1].kind == "adapter"
    assert runs[1].state == "promoted", runs[1].figures
    bits = runs[1].figures["gate"]["bits_per_byte"]
    assert bits["candidate"] < bits["base"]
    assert line.current_version == 1
    assert ctx.paths.current.resolve() == ctx.paths.version(1)
    manifest = verify_folder(ctx.paths.version(1))
    assert manifest["members_digest"] == runs[1].members_digest
    state = json.loads(ctx.paths.state_file.read_text())
    assert (state["current_version"], state["total_training_runs"]) == (1, 1)

    store_standard_library(engine, first=100, num=40, source="second")
    tick_until_idle(ctx)

    with engine.connect() as conn:
        second = fetch_runs(conn, line.id, limit=1)[0]
        versions = {one["number"]: one for one in fetch_versions(conn, line.id)}
        roles = count_members(conn, second.id)
        report = audit(conn)
        reasons = [one["reason"] for one in fetch_decisions(conn, line.id, limit=20)]
    assert second.number == 2
    assert second.state in ("promoted", "held", "rejected")
    assert versions[2]["parent"] == 1
    assert roles["replay"] > 0
    assert set(second.figures["gate"]["bits_per_byte"]) == {"base", "incumbent", "candidate"}
    assert report.rows_unaccounted == 0
    assert {"base_missing", "threshold_reached", "too_few_rows"} <= set(reasons)


@pytest.mark.parametrize("missing", ["test", "rows"])
def test_it_waits_and_says_for_what(ctx, engine, missing):
    num = 12 if missing == "rows" else 80
    store_standard_library(engine, first=0, num=num, source="first")
    if missing == "test":
        ctx = type(ctx)(
            **{
                **{name: getattr(ctx, name) for name in ctx.__slots__},
                "settings": ctx.settings.model_copy(update={"min_test_units": 500}),
            }
        )

    assert not tick(ctx)
    assert ctx.live.decision == ("wait", "too_few_held_out" if missing == "test" else "too_few_rows")
