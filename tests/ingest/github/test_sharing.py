"""Crawlers that work at the same time: by leases, each window is one's; and what interrupts them."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from ingest.config import IngestSettings
from ingest.github.clock import Stopped
from ingest.github.context import Crawler
from ingest.github.crawler import crawl, crawl_one
from ingest.github.plans import Plan, open_passes
from ingest.github.runs import open_client
from ingest.opt_outs import apply_opt_outs
from schema.crawl import claim_window, count_windows
from tests.ingest.github.conftest import TOKEN, FakeClock
from tests.ingest.github.fake import FakeGithub
from tests.ingest.github.universe import TODAY, make_repo

PLAN = Plan("complete", ("python",))
DAYS = [TODAY.replace(year=year, month=month, day=1) for year in range(2014, 2025) for month in range(1, 13)]
REPOS = [make_repo(f"a/r{n}", n, created=DAYS[n % len(DAYS)]) for n in range(1200)]


@pytest.fixture
def make_crawler(engine: sa.Engine, clock: FakeClock) -> Callable[[FakeGithub], Crawler]:
    """Call it with a fake for a crawler of the plan's opened passes."""

    def make(fake: FakeGithub) -> Crawler:
        settings = IngestSettings(github_api_url=fake.url, github_tokens=[SecretStr(TOKEN)])
        with engine.begin() as conn:
            open_passes(conn, PLAN, settings, clock.utc())
        crawler = Crawler(engine, open_client(engine, settings, clock), PLAN, settings, clock)
        crawler.client.on_wait = lambda _left_s, _reason: crawler.keep_claim()
        return crawler

    return make


def fetch_one(engine: sa.Engine, sql: str) -> int:
    with engine.begin() as conn:
        return int(conn.execute(sa.text(sql)).scalar_one())


def test_two_crawlers_get_different_windows(
    make_github: Callable[..., FakeGithub],
    make_crawler: Callable[[FakeGithub], Crawler],
    engine: sa.Engine,
    clock: FakeClock,
) -> None:
    fake = make_github(REPOS)
    one, other = make_crawler(fake), make_crawler(fake)
    assert crawl_one(one), "the first finds the whole too large, and splits it"
    with engine.begin() as conn:
        num_parts = count_windows(conn, "complete", ["python"])["pending"]
    with engine.connect() as first, engine.connect() as second:
        claims = [claim_window(conn, "complete", ["python"], lease_s=60, now=clock.utc()) for conn in (first, second)]
        assert len({claim.window_id for claim in claims if claim}) == 2
    while crawl_one(one) and crawl_one(other):
        pass
    assert min(one.tally.num_pages, other.tally.num_pages) >= 3
    assert one.tally.num_pages + other.tally.num_pages == fake.num_searches
    assert len(set(fake.queries)) == 1 + num_parts
    assert fetch_one(engine, "SELECT count(*) FROM repositories") == len(REPOS)
    one.client.close()
    other.client.close()


def test_who_wakes_up_after_its_lease_saves_nothing_and_the_other_goes_on_from_the_cursor(
    make_github: Callable[..., FakeGithub],
    make_crawler: Callable[[FakeGithub], Crawler],
    engine: sa.Engine,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = make_github(REPOS[:500])
    sleeper, other = make_crawler(fake), make_crawler(fake)

    def take_over() -> None:
        clock.tick()
        if fake.num_searches == 2:
            fake.on_request = clock.tick
            with engine.begin() as conn:
                conn.execute(sa.text("UPDATE crawl_windows SET lease_until = now() - interval '1 s'"))
            assert crawl_one(other)

    # Not within an answer: the fake answers one request at a time.
    sleeper.clock = clock
    before = sleeper.client.fetch

    def fetch(url: str, etags: object = None) -> object:
        take_over()
        return before(url, etags)  # type: ignore[arg-type]

    sleeper.client.fetch = fetch  # type: ignore[method-assign, assignment]
    assert crawl_one(sleeper)
    assert "is not held by this crawler any more" in caplog.text
    assert (sleeper.tally.num_pages, other.tally.num_pages) == (3, 3), "pages 1, 2, and 3 in vain; pages 3, 4 and 5"
    assert fetch_one(engine, "SELECT num_found FROM crawl_windows") == 500
    assert fetch_one(engine, "SELECT count(*) FROM repositories") == 500
    sleeper.client.close()
    other.client.close()


def test_a_stop_gives_the_window_back_with_its_cursor(
    make_github: Callable[..., FakeGithub],
    make_crawler: Callable[[FakeGithub], Crawler],
    engine: sa.Engine,
    clock: FakeClock,
) -> None:
    fake = make_github(REPOS[:500])
    crawler = make_crawler(fake)
    clock.stop_at = 4.0
    with pytest.raises(Stopped):
        crawl_one(crawler)
    assert fetch_one(engine, "SELECT count(*) FROM crawl_windows WHERE state = 'pending' AND cursor IS NOT NULL") == 1
    clock.stop_at = float("inf")
    crawl(crawler)
    assert fake.num_searches == 5
    assert fetch_one(engine, "SELECT count(*) FROM repositories") == 500
    crawler.client.close()


def test_who_opts_out_during_a_crawl_is_not_queued_any_more(
    make_github: Callable[..., FakeGithub], make_crawler: Callable[[FakeGithub], Crawler], engine: sa.Engine
) -> None:
    crawler = make_crawler(make_github(REPOS[:10]))
    with engine.begin() as conn:
        apply_opt_outs(conn, ["a/r7"])
    crawl(crawler)
    assert fetch_one(engine, "SELECT count(*) FROM repositories WHERE state = 'queued'") == 9
    assert fetch_one(engine, "SELECT count(*) FROM repositories WHERE reason = 'opted_out'") == 1
    crawler.client.close()


def test_cut_connections_cost_no_page_that_was_saved(
    make_github: Callable[..., FakeGithub], make_crawler: Callable[[FakeGithub], Crawler], engine: sa.Engine
) -> None:
    """Every connection is cut while the second page is on its way."""
    fake = make_github(REPOS[:500])
    crawler = make_crawler(fake)
    crawler.settings = crawler.settings.model_copy(update={"lease_s": 1})
    tick, cut = fake.on_request, []

    def cut_connections() -> None:
        tick()
        if len(fake.queries) == 2 and not cut:
            cut.append(True)
            with engine.connect() as conn:
                conn.execute(
                    sa.text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                        " AND datname = current_database()"
                    )
                )

    fake.on_request = cut_connections
    crawl(crawler)
    assert fetch_one(engine, "SELECT count(*) FROM repositories") == 500
    assert fake.num_searches <= 6
    crawler.client.close()
