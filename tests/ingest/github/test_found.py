"""What was found, in the database: who is new, who is known, who has moved, and who is visited again."""

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa

from ingest.config import IngestSettings
from ingest.github.accept import accept
from ingest.github.replies import Found
from schema.found import save_found
from schema.repositories import add_source, claim_repository, refuse_repository
from tests.builders import finish
from tests.ingest.github.universe import TODAY, make_repo

NOW = dt.datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=dt.UTC)


@pytest.fixture
def find(engine: sa.Engine) -> Any:
    """Call it with what distinguishes repositories, for what became of them."""

    def run(*repos: dict[str, Any]) -> dict[str, int]:
        rows = []
        for values in repos:
            found = Found.model_validate(make_repo(**({"full_name": "alice/tool"} | values)).to_json("github.com"))
            rows.append(accept(found, "python", IngestSettings(), now=NOW))
        with engine.begin() as conn:
            return dict(save_found(conn, rows))

    return run


def fetch_all(engine: sa.Engine, *columns: str) -> list[tuple[Any, ...]]:
    with engine.begin() as conn:
        rows = conn.execute(sa.text(f"SELECT {', '.join(columns)} FROM repositories ORDER BY id"))
        return [tuple(row) for row in rows]


def test_the_accepted_are_queued_and_the_refused_are_kept_with_their_reason(engine: sa.Engine, find: Any) -> None:
    assert find({}, {"full_name": "bob/rust-demo", "number": 2}) == {"queued": 1, "refused": 1}
    rows = fetch_all(engine, "source", "origin", "state", "reason", "node_id", "stars", "api_licence", "topics")
    assert rows[0] == (
        *("https://github.com/alice/tool", "crawler", "queued", None, "R_1", 500, "MIT"),
        ["parser", "cli"],
    )
    assert rows[1][:4] == ("https://github.com/bob/rust-demo", "crawler", "refused", "demo")
    assert fetch_all(engine, "description")[0] == ("A fast parser of configuration files",)
    detail = fetch_all(engine, "score_detail -> 'penalties' -> 'demo'")[1][0]
    assert detail == {"points": 60, "said_by": "name"}


def test_finding_it_again_changes_its_figures_alone(engine: sa.Engine, find: Any) -> None:
    find({})
    assert find({"stars": 900}) == {"known": 1}
    assert fetch_all(engine, "stars", "state") == [(900, "queued")]


def test_one_repository_twice_on_a_page_is_one(engine: sa.Engine, find: Any) -> None:
    assert find({}, {"stars": 7}, {"number": 2}) == {"queued": 1}


def test_a_rename_makes_no_second_repository_and_changes_where_it_is_cloned_from(engine: sa.Engine, find: Any) -> None:
    find({})
    assert find({"full_name": "bob/tool2"}) == {"known": 1}
    assert fetch_all(engine, "source", "moved_to") == [
        ("https://github.com/alice/tool", "https://github.com/bob/tool2")
    ]
    with engine.begin() as conn:
        assert claim_repository(conn, lease_s=60).moved_to == "https://github.com/bob/tool2"
    find({})
    assert fetch_all(engine, "moved_to") == [(None,)], "and back"


def test_who_takes_the_name_of_one_that_has_moved_is_not_mistaken_for_it(engine: sa.Engine, find: Any) -> None:
    find({})
    assert find({"full_name": "bob/tool"}, {"number": 2, "stars": 3000}) == {"known": 1, "taken_name": 1}
    assert fetch_all(engine, "node_id", "stars") == [("R_1", 500)]


def test_a_repository_that_was_made_anew_under_its_name_is_the_known_one(engine: sa.Engine, find: Any) -> None:
    find({})
    assert find({"number": 2}) == {"known": 1}
    assert fetch_all(engine, "node_id") == [("R_2",)]


@pytest.mark.parametrize(
    ("end", "again", "state"),
    [
        ("done", {"pushed": TODAY}, "queued"),
        ("done", {"stars": 900}, "done"),
        ("done", {"archived": True, "pushed": TODAY}, "done"),
        ("refused", {"pushed": TODAY}, "queued"),
        ("refused", {"stars": 900}, "refused"),
    ],
)
def test_what_was_visited_is_visited_again_when_something_was_pushed(
    end: str, again: dict[str, Any], state: str, engine: sa.Engine, find: Any
) -> None:
    find({})
    with engine.begin() as conn:
        claim = claim_repository(conn, lease_s=60)
        assert claim is not None
        finish(conn, claim) if end == "done" else refuse_repository(conn, claim, "nothing_accepted")
    find(again)
    assert fetch_all(engine, "state") == [(state,)]


def test_what_the_crawler_refused_it_may_accept_and_the_other_way_round(engine: sa.Engine, find: Any) -> None:
    find({"stars": 5})
    assert fetch_all(engine, "state", "reason") == [("refused", "unpopular")]
    find({"stars": 50})
    assert fetch_all(engine, "state", "reason") == [("queued", None)]
    find({"archived": True})
    assert fetch_all(engine, "state", "reason") == [("refused", "archived")]


def test_the_rules_do_not_apply_to_what_the_operator_named(engine: sa.Engine, find: Any) -> None:
    find({"stars": 5})
    with engine.begin() as conn:
        add_source(conn, source="https://github.com/alice/tool", kind="git", owner="alice", name="tool", priority=3)
    assert find({"archived": True, "stars": 2}) == {"known": 1}
    assert fetch_all(engine, "origin", "state", "reason", "priority", "stars") == [("operator", "queued", None, 3, 2)]


def test_the_best_are_visited_first_and_the_operators_before_them(engine: sa.Engine, find: Any) -> None:
    find({"full_name": "a/poor", "stars": 20, "forks": 5}, {"full_name": "a/rich", "number": 2, "stars": 9000})
    with engine.begin() as conn:
        add_source(conn, source="/named", kind="folder", name="named")
        assert [claim_repository(conn, lease_s=60).name for _ in "xxx"] == ["named", "rich", "poor"]
