"""A whole crawl of a fake GitHub of 55,000 repositories, on a clock that only waits move."""

import datetime as dt
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from ingest.github import crawler, plans, windows
from ingest.github.terms import Term
from tests.ingest.github.conftest import FakeClock
from tests.ingest.github.fake import FakeGithub
from tests.ingest.github.universe import Repo, generate, make_repo, matching, push


@pytest.fixture(scope="module")
def universe() -> list[Repo]:
    return generate(55_000)


def fetch_ids(engine: sa.Engine) -> set[str]:
    with engine.begin() as conn:
        return set(conn.execute(sa.text("SELECT node_id FROM repositories")).scalars())


def test_the_complete_plan_finds_everything_and_a_recrawl_only_asks_for_what_was_pushed(
    universe: list[Repo],
    make_github: Callable[..., FakeGithub],
    run: Callable[..., dict[str, Any]],
    engine: sa.Engine,
    clock: FakeClock,
) -> None:
    fake = make_github(universe)
    expected = {repo.node_id for repo in matching(universe)}
    report = run(fake)
    found = fetch_ids(engine)
    num_first, budget = fake.num_searches, 1.5 * math.ceil(len(expected) / 100)
    share = len(found & expected) / len(expected)
    print(
        f"N {len(expected)} of {len(universe)}, requests {num_first}, ratio {num_first * 100 / len(expected):.3f}, "
        f"found {share:.4%}, hours {clock.seconds / 3600:.2f}, windows {report['windows']}"
    )
    assert share >= 0.995
    assert num_first <= budget
    assert len(fake.asked_owners) <= 60
    assert found <= expected
    assert fake.violations == []
    assert report["finished"]

    clock.seconds += 86_400
    changed, pushed = push(universe, 0.02)
    new = make_repo("somebody/new", 10_000_001, stars=11, forks=3)
    fake.set_repos([*changed, new])
    second = run(fake)
    num_second = fake.num_searches - num_first
    print(f"recrawl: {num_second} requests, {1 - num_second / num_first:.2%} skipped, {second['repositories']}")
    assert set(second["passes"].values()) == {"pushed"}
    assert num_second <= 0.1 * num_first
    assert fetch_pushed(engine) >= {repo.node_id for repo in matching(changed)} & pushed

    assert fake.violations == []


def test_a_full_recrawl_is_answered_by_304_where_nothing_changed_and_finds_new_stars(
    universe: list[Repo],
    make_github: Callable[..., FakeGithub],
    run: Callable[..., dict[str, Any]],
    engine: sa.Engine,
    clock: FakeClock,
) -> None:
    fake = make_github(universe)
    first = run(fake, "rust")
    clock.seconds += 40 * 86_400
    risen = make_repo("somebody/risen", 10_000_002, language="Rust", stars=11, forks=3, created=dt.date(2026, 1, 1))
    fake.set_repos([*universe, risen])
    second = run(fake, "rust")
    share = second["pages_unchanged"] / second["pages"]
    print(f"full recrawl: {second['pages']} pages, {share:.1%} answered by 304")
    assert second["passes"] == {"rust": "full"}
    assert share >= 0.3, "more than the window that has changed, and pages with somebody who was too young"
    assert second["pages"] <= first["pages"]
    assert risen.node_id in fetch_ids(engine)
    assert fake.violations == []


def fetch_pushed(engine: sa.Engine) -> set[str]:
    with engine.begin() as conn:
        return set(conn.execute(sa.text("SELECT node_id FROM repositories WHERE pushed_at >= '2026-11-01'")).scalars())


def test_failures_lose_nothing(
    universe: list[Repo],
    make_github: Callable[..., FakeGithub],
    run: Callable[..., dict[str, Any]],
    engine: sa.Engine,
) -> None:
    """One request in three goes wrong, in one way after the other."""
    fake = make_github(universe)
    moods = ("500", "broken", "incomplete", "secondary", "hang", "502")
    sequence = itertools.cycle(mood for bad in moods for mood in (bad, None, None))
    fake.choose_mood = lambda: next(sequence)
    report = run(fake, "dart", "rust")
    expected = {repo.node_id for repo in matching(universe) if repo.language in ("Dart", "Rust")}
    assert fetch_ids(engine) == expected
    assert fake.violations == []
    assert report["finished"]
    assert report["incomplete"] == []
    assert min(fake.answers[mood] for mood in moods) > 0


def test_what_github_does_not_search_to_its_end_is_asked_in_smaller_parts(
    universe: list[Repo],
    make_github: Callable[..., FakeGithub],
    run: Callable[..., dict[str, Any]],
    engine: sa.Engine,
) -> None:
    fake = make_github(universe)
    fake.incomplete_above = 300
    report = run(fake, "dart")
    assert fetch_ids(engine) == {repo.node_id for repo in matching(universe) if repo.language == "Dart"}
    assert report["windows"]["split"] > 0
    assert report["incomplete"] == []


def test_a_window_that_stays_incomplete_is_kept_with_its_reason_and_read_by_the_next_crawl(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], engine: sa.Engine
) -> None:
    fake = make_github([make_repo("a/b")])
    fake.incomplete_above = 0
    report = run(fake, "python")
    assert (report["windows"]["kept"], [row["reason"] for row in report["incomplete"]]) == (1, ["incomplete"])
    fake.incomplete_above = math.inf
    report = run(fake, "python")
    assert (report["windows"]["kept"], report["incomplete"], fetch_ids(engine)) == (0, [], {"R_1"})


def test_what_cannot_be_split_further_says_how_much_it_hides(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], engine: sa.Engine
) -> None:
    day = dt.date(2020, 1, 1)
    fake = make_github(make_repo(f"a/r{n}", n, stars=12, created=day, pushed=day) for n in range(1010))
    report = run(fake, "python")
    assert [row["reason"] for row in report["incomplete"]] == ["capped: 10 of 1010 results are not shown"]
    assert len(fetch_ids(engine)) == 1000


def test_a_count_that_grows_while_its_window_is_read_loses_nothing(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], engine: sa.Engine
) -> None:
    """The first page says 900, so that the window fits; from the second on there are more than GitHub shows."""
    days = [dt.date(2012 + n % 12, 1 + n % 12, 1) for n in range(1080)]
    fake = make_github(make_repo(f"a/r{n}", n, created=day) for n, day in enumerate(days, start=1))
    fake.counts.append(900)
    report = run(fake, "python")
    assert len(fetch_ids(engine)) == 1080
    assert (report["windows"]["split"], report["incomplete"]) == (1, [])


def test_counts_that_are_none_end_in_windows_that_say_so(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question has a billion results, however small its window: parts are made up to a number, and no further."""
    monkeypatch.setattr(windows, "_MAX_PARTS", 4)
    monkeypatch.setattr(crawler, "MAX_WINDOWS", 9)
    fake = make_github([make_repo("a/b")])
    fake.choose_count = lambda _num: 10**9
    report = run(fake, "python")
    assert report["finished"]
    assert (report["windows"]["split"], report["windows"]["done"]) == (2, 7)
    assert sorted(row["reason"] for row in report["incomplete"]) == [
        *["short: 0 of 1000 results were shown"] * 6,
        "short: 1 of 1000 results were shown",
    ]


def test_a_page_under_another_address_is_known_by_the_one_that_was_asked(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], clock: FakeClock
) -> None:
    fake = make_github(make_repo(f"a/r{n}", n) for n in range(150))
    fake.moved_path = "/moved/search/repositories"
    run(fake, "python")
    clock.seconds += 40 * 86_400
    again = run(fake, "python")
    assert (again["passes"], again["pages"], again["pages_unchanged"]) == ({"python": "full"}, 2, 2)


def test_other_rules_judge_again_what_has_not_changed(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], clock: FakeClock
) -> None:
    fake = make_github([make_repo("a/b")])
    assert run(fake, "python", min_repository_score=99)["refused"] == {"score": 1}
    clock.seconds += 40 * 86_400
    assert run(fake, "python", min_repository_score=50)["repositories"] == {"known": 1}
    clock.seconds += 40 * 86_400
    assert run(fake, "python", min_repository_score=50)["pages_unchanged"] == 1


def test_who_was_renamed_moved_made_private_or_deleted_between_two_crawls_is_one_and_stays_stored(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], engine: sa.Engine, clock: FakeClock
) -> None:
    fake = make_github([make_repo("a/renamed", 1), make_repo("a/moved", 2), make_repo("a/gone", 3)])
    run(fake, "python")
    clock.seconds += 40 * 86_400
    fake.set_repos([make_repo("a/newname", 1), make_repo("other/moved", 2)])
    run(fake, "python")
    with engine.begin() as conn:
        rows = conn.execute(sa.text("SELECT name, state, moved_to FROM repositories ORDER BY node_id")).all()
    host = f"https://{fake.host}"
    assert [tuple(row) for row in rows] == [
        ("renamed", "queued", f"{host}/a/newname"),
        ("moved", "queued", f"{host}/other/moved"),
        ("gone", "queued", None),  # a visit finds out, and refuses it
    ]


def test_the_plan_terms_asks_for_every_term_and_reads_five_pages(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "load_terms", lambda: [Term("parser", "general"), Term("type-system", "general")])
    fake = make_github(make_repo(f"a/r{n}", n) for n in range(700))
    report = run(fake, "python", "go", plan="terms")
    assert (report["pages"], report["repositories"]) == (5 + 3, {"queued": 500})
    assert len({query for query in fake.queries if '"type-system"' in query}) == 2


def test_other_limits_than_last_time_make_a_new_full_crawl(
    make_github: Callable[..., FakeGithub], run: Callable[..., dict[str, Any]], engine: sa.Engine
) -> None:
    fake = make_github([make_repo("a/b", 1, stars=20), make_repo("a/c", 2, stars=7)])
    run(fake, "python")
    report = run(fake, "python", min_stars=5)
    assert (report["passes"], report["windows"]["done"]) == ({"python": "full"}, 1)
    assert fetch_ids(engine) == {"R_1", "R_2"}
