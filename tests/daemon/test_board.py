"""What the page shows of the database, also while that is away."""

import pytest

from daemon.board import Board
from daemon.tick import tick
from schema.database import create_engine
from tests.daemon.conclusions import conclude_with
from tests.proxy import Proxy


@pytest.fixture
def settings(settings):
    changes = {"base_model": "some/model", "threshold_rows": 10, "min_test_units": 2, "min_chars": 1}
    return settings.model_copy(update=changes)


def test_it_shows_versions_decisions_queue_and_refusals(ctx, engine, rows):
    rows()
    conclude_with(ctx, -0.05)
    tick(ctx)
    shown = Board(engine, "micro").show()
    (version,) = shown["versions"]
    assert (version["number"], version["verdict"]) == (1, "promoted")
    assert version["bits_per_byte"] < version["judged_against"]
    assert shown["decisions"][0]["reason"] == "too_few_rows"
    assert shown["ingest"]["queue"]["done"] == 1
    assert shown["ingest"]["refusals"] == {"binary": 1}


def test_while_the_database_is_away_it_shows_what_it_saw_last(ctx, database_url, rows, monkeypatch):
    rows()
    with Proxy(database_url) as proxy:
        own = create_engine(proxy.url, application_name="board")
        board = Board(own, "micro")
        before = board.show()
        proxy.go_away()
        monkeypatch.setattr("daemon.board._MAX_AGE_S", 0.0)
        assert board.show() == before
        own.dispose()
    assert before["ingest"]["queue"]["done"] == 1


def test_without_its_line_it_shows_nothing(engine):
    assert Board(engine, "another").show() == {}
