"""The age of owners' accounts: known by their numbers, asked for seldom, and never for who is refused anyway."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from tests.ingest.github.conftest import FakeClock
from tests.ingest.github.fake import FakeGithub
from tests.ingest.github.universe import Repo, make_repo

DAY_S = 86_400


def fetch_reasons(engine: sa.Engine) -> dict[str, str | None]:
    with engine.begin() as conn:
        return {row.owner: row.reason for row in conn.execute(sa.text("SELECT owner, reason FROM repositories"))}


def of(*logins: str, **values: Any) -> list[Repo]:
    return [make_repo(f"{login}/tool", number, **values) for number, login in enumerate(logins, start=1)]


def test_whoever_made_an_account_lately_is_refused_until_it_is_old_enough(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], engine: sa.Engine, clock: FakeClock
) -> None:
    fake = make_github(of("alice", "newcomer-20", "newcomer-89", "newcomer-91"))
    report = run(fake, "python")
    expected = {"alice": None, "newcomer-20": "young_owner", "newcomer-89": "young_owner", "newcomer-91": None}
    assert fetch_reasons(engine) == expected
    assert report["refused"] == {"young_owner": 2}
    clock.seconds += 31 * DAY_S  # the next full crawl: nothing has changed on the page, and still it is read
    assert run(fake, "python")["refused"] == {"young_owner": 1}
    assert fetch_reasons(engine) == expected | {"newcomer-89": None}


def test_a_page_of_a_hundred_owners_takes_a_few_requests_and_the_next_crawl_none(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], engine: sa.Engine
) -> None:
    fake = make_github(of(*(f"owner{n}" for n in range(90)), *(f"newcomer-{n}" for n in range(1, 200, 20))))
    report = run(fake, "python")
    assert report["refused"] == {"young_owner": 5}
    assert len(fake.asked_owners) <= 7
    assert report["requests"] == 1 + len(fake.asked_owners)
    num_asked = len(fake.asked_owners)
    run(fake, "python", min_stars=11)
    assert len(fake.asked_owners) == num_asked, "what was said of an account holds for ever"
    assert fake.violations == []


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        ({"topics": ("tutorial",)}, {}),
        ({"stars": 3}, {}),
        ({}, {"force_include": ["newcomer-*/tool"]}),
        ({}, {"force_exclude": ["newcomer-*/tool"]}),
        ({}, {"min_owner_age_days": 0}),
    ],
)
def test_nobody_is_asked_for_where_it_decides_nothing(
    values: dict[str, Any],
    settings: dict[str, Any],
    make_github: Callable[..., FakeGithub],
    run: Callable[..., dict[str, Any]],
    engine: sa.Engine,
) -> None:
    fake = make_github(of("newcomer-5", **values))
    run(fake, "python", **settings)
    assert fake.asked_owners == []
    assert "young_owner" not in fetch_reasons(engine).values()


def test_an_account_that_is_gone_or_another_one_by_now_costs_itself_alone(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], engine: sa.Engine
) -> None:
    renamed = make_repo("renamed/tool", 8, values={"owner": {"login": "renamed", "id": 9_999_998}})
    fake = make_github([*of("alice", "zoe"), renamed])
    fake.lost_owners.update(("alice", "zoe"))
    report = run(fake, "python")
    assert fetch_reasons(engine) == dict.fromkeys(("alice", "zoe", "renamed"), "unknown_owner")
    assert report["finished"]


def test_owners_that_cannot_be_asked_for_now_put_their_page_off(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], engine: sa.Engine
) -> None:
    fake = make_github(of("alice"))
    fake.moods.extend([None, *["500"] * 5])
    report = run(fake, "python")
    assert (fetch_reasons(engine), report["finished"]) == ({"alice": None}, True)
