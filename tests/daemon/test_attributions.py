"""Every version says whose code it was trained on, under which licences, its ancestors' code included."""

import json

import pytest

from daemon.publish import verify_folder
from tests.builders import add_files, add_repository
from tests.daemon.conclusions import conclude_with

BETTER, WORSE = -0.05, +0.05


@pytest.fixture
def settings(settings):
    # A base that comes from the hub: no run 0. Nothing here loads it.
    return settings.model_copy(
        update={"base_model": "some/model", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    )


@pytest.fixture
def store(engine):
    """Store so many new rows of a source under a licence, and some held-out ones."""

    def run(source, num, licence):
        with engine.begin() as conn:
            repository_id = add_repository(conn, source)
            add_files(conn, repository_id, num, licence=licence)
            for number in range(8):
                add_files(conn, repository_id, 1, split="test", unit=f"{source}/held_{number}", licence=licence)

    return run


def read_attributions(ctx, number):
    folder = ctx.paths.version(number)
    manifest = verify_folder(folder)
    assert "ATTRIBUTIONS.jsonl" in manifest["files"]
    lines = [json.loads(line) for line in (folder / "ATTRIBUTIONS.jsonl").read_text().splitlines()]
    rows = [(one["source"], one["commit"], one["licence"], one["rows"], one["rows_in_all"]) for one in lines]
    return rows, manifest["attributions"], (folder / "README.md").read_text()


def test_a_version_lists_its_sources_and_sums_its_licences_up(ctx, store):
    store("/sources/one", 12, "MIT")
    store("/sources/two", 8, None)

    conclude_with(ctx, BETTER)

    rows, summary, card = read_attributions(ctx, 1)
    assert rows == [("/sources/one", "c0ffee", "MIT", 12, 12), ("/sources/two", "c0ffee", None, 8, 8)]
    assert summary == {"sources": 2, "rows": 20, "licences": {"MIT": 12, "not stated": 8}}
    assert "Rows by licence: MIT 12, not stated 8." in card


def test_what_its_ancestors_were_trained_on_is_listed_too(ctx, store):
    store("/sources/one", 12, "MIT")
    conclude_with(ctx, BETTER)
    store("/sources/two", 10, "ISC")
    conclude_with(ctx, WORSE)
    store("/sources/three", 15, "0BSD")

    conclude_with(ctx, BETTER)

    rows, summary, _ = read_attributions(ctx, 3)
    assert rows == [
        ("/sources/one", "c0ffee", "MIT", 0, 12),
        ("/sources/three", "c0ffee", "0BSD", 15, 15),
        ("/sources/two", "c0ffee", "ISC", 10, 10),
    ]
    assert summary == {"sources": 3, "rows": 37, "licences": {"0BSD": 15, "MIT": 12, "ISC": 10}}
    rejected, _, _ = read_attributions(ctx, 2)
    assert rejected == [("/sources/one", "c0ffee", "MIT", 0, 12), ("/sources/two", "c0ffee", "ISC", 10, 10)]
