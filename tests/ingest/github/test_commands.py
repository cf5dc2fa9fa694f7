"""`codelupe ingest crawl` as a process: it shows what it does, ends when asked, and goes on after any death."""

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from pydantic import SecretStr

from ingest.config import IngestSettings
from ingest.github.commands import crawl
from ingest.github.transport import identify_token
from monitoring.config import MonitoringSettings
from monitoring.metrics import REGISTRY
from schema.config import DatabaseSettings
from tests.ingest.github.conftest import TOKEN
from tests.ingest.github.fake import FakeGithub
from tests.ingest.github.universe import Repo, make_repo
from tests.waiting import DEADLINE_S, wait_for

ROOT = Path(__file__).parents[3]
REPOS = [
    make_repo(f"a/r{n}", n, language="Dart", created=dt.date(2015 + n % 10, 1 + n % 12, 1 + n % 28))
    for n in range(1500)
]


@pytest.fixture
def github() -> Iterator[FakeGithub]:
    """A fake on the real clock, with room for everybody."""
    fake = FakeGithub(REPOS, lambda: dt.datetime.now(dt.UTC), tokens=[TOKEN])
    fake.search_limit = 1_000_000
    yield fake
    fake.close()


@pytest.fixture
def start(github: FakeGithub, database_url: str, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Call it with arguments of `codelupe ingest crawl` for a process of its own."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CODELUPE_")} | {
        "CODELUPE_HOME": str(tmp_path / "home"),
        "CODELUPE_DATABASE_URL": database_url,
        "CODELUPE_GITHUB_API_URL": github.url,
        "CODELUPE_GITHUB_TOKENS_FILE": str(tmp_path / "token"),
        "CODELUPE_LANGUAGES": "dart",
        "CODELUPE_LEASE_S": "3",
    }
    started = []

    def run(*arguments: str, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "codelupe", "ingest", "crawl", "--no-server", *arguments]
        process = subprocess.Popen(
            command, env=environment | more, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(github: FakeGithub, database_url: str, tmp_path: Path) -> Callable[..., Result]:
    """Call it with arguments of `codelupe ingest crawl`, and settings, in this process."""

    def invoke(*arguments: str, **values: Any) -> Result:
        given = {"github_api_url": github.url, "github_tokens": [SecretStr(TOKEN)], "languages": ("dart",)} | values
        database = DatabaseSettings(database_url=SecretStr(database_url))
        settings = SimpleNamespace(
            home=tmp_path,
            database=database,
            monitoring=MonitoringSettings(crawl_port=0),
            ingest=IngestSettings(**given),
        )
        return CliRunner().invoke(crawl, arguments, obj=settings)

    return invoke


def fetch_one(engine: sa.Engine, sql: str) -> Any:
    with engine.begin() as conn:
        return conn.execute(sa.text(sql)).scalar_one()


def count(engine: sa.Engine) -> int:
    return int(fetch_one(engine, "SELECT count(*) FROM repositories"))


def let_leases_run_out(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE crawl_windows SET lease_until = now() - interval '1 s' WHERE state = 'working'"))


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, err


def test_killed_within_a_closed_window_nobody_asks_before_it_opens_and_then_goes_on_from_the_last_page(
    start: Callable[..., subprocess.Popen[str]], github: FakeGithub, engine: sa.Engine
) -> None:
    """One dies at a commit, with the page that used up its token unsaved; the next one waits until it is stopped.

    That takes seconds, whatever is left of the wait, and it gives its window back.
    """

    def close_window() -> None:
        if github.num_searches == 8:  # the ninth page is the last of this window, which ends in an hour
            github._windows[TOKEN] = (github.utc().timestamp() + 3600 - github.window_s, 1)

    github.on_request = close_window
    assert end(start(CODELUPE_FAILPOINTS="crawl.before_commit=kill@9"))[0] == -signal.SIGKILL
    stored, num_requests = count(engine), len(github.headers)
    assert 0 < stored < len(REPOS)
    let_leases_run_out(engine)
    waiting, leases = start("--json"), set()

    def is_waiting() -> bool:
        leases.add(fetch_one(engine, "SELECT max(lease_until) FROM crawl_windows WHERE state = 'working'"))
        return len(leases) >= 4

    wait_for(is_waiting, "a lease that is renewed in a wait")
    waiting.send_signal(signal.SIGTERM)
    code, out, _ = end(waiting)
    report = json.loads(out)
    assert (code, report["finished"], report["requests"]) == (0, False, 0)
    assert (len(github.headers), github.violations) == (num_requests, [])
    assert fetch_one(engine, "SELECT count(*) FROM crawl_windows WHERE state = 'working'") == 0

    github._windows.clear()
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE crawl_limits SET resets_at = now(), paced_until = now()"))
    code, out, err = end(start("--json"))
    assert (code, count(engine)) == (0, len(REPOS))
    num_pages = json.loads(out)["pages"]
    assert num_pages + 9 <= github.num_searches + 1
    leaves = fetch_one(engine, "SELECT sum(ceil(total / 100.0)) FROM crawl_windows WHERE state = 'done'")
    splits = fetch_one(engine, "SELECT count(*) FROM crawl_windows WHERE state = 'split'")
    assert github.num_searches <= leaves + splits + 1, "no page but that one is read twice"
    assert TOKEN not in out + err


def test_a_dry_run_says_what_a_crawl_would_take_and_stores_nothing(
    run: Callable[..., Result], github: FakeGithub, engine: sa.Engine
) -> None:
    result = run("--dry-run", github_tokens=())
    assert result.exit_code == 0, result.output
    assert "dart: 1500 repositories, about 18 requests; 100 of the first 100 would be queued" in result.stdout
    assert "together about 18 requests, 2 minutes; nothing was queued" in result.stdout
    assert "no CODELUPE_GITHUB_TOKENS" in result.stderr
    assert (count(engine), github.num_searches) == (0, 1)


def test_a_dry_run_says_why_some_would_be_refused_and_obeys_the_window_that_another_process_closed(
    run: Callable[..., Result], github: FakeGithub, engine: sa.Engine
) -> None:
    github.set_repos([make_repo("b/demo-x", 1, language="Dart"), make_repo("b/tool", 9, language="Dart")])
    github.retry_after = 1
    github.moods.append("secondary")
    started = time.monotonic()
    with engine.begin() as conn:
        conn.execute(
            sa.text(
                "INSERT INTO crawl_limits VALUES (:id, 'search', NULL, NULL, clock_timestamp() + interval '0.5 s')"
            ),
            {"id": identify_token(SecretStr(TOKEN))},
        )
    result = run("--dry-run", "--json")
    assert result.exit_code == 0, result.output
    assert time.monotonic() - started >= 1.5
    assert json.loads(result.stdout)["languages"]["dart"]["refused_of_first_page"] == {"demo": 1}
    assert github.violations == []


def test_a_dry_run_that_cannot_be_made_says_why(run: Callable[..., Result], github: FakeGithub) -> None:
    github.choose_count = lambda _num: -1
    result = run("--dry-run")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: broken_body: language:Dart" in result.stderr


@pytest.mark.parametrize(("text", "says"), [("bob\n", "out:1: 'bob' is no opt-out"), (None, "cannot be read")])
def test_an_opt_out_file_that_is_none_stops_it_before_anything_is_asked(
    text: str | None, says: str, run: Callable[..., Result], github: FakeGithub, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "out").write_text(text)
    result = run(opt_out=(tmp_path / "out",))
    assert (result.exit_code, says in result.stderr, github.headers) == (1, True, [])


def test_a_token_that_is_not_accepted_ends_it_with_what_to_do(run: Callable[..., Result], github: FakeGithub) -> None:
    github.tokens.clear()
    result = run()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "GitHub accepts none of CODELUPE_GITHUB_TOKENS: renew or unset them" in result.stderr
    assert TOKEN not in result.output


def test_the_summary_and_the_metrics_say_what_was_found_and_why_something_was_refused(
    run: Callable[..., Result], github: FakeGithub
) -> None:
    repos: list[Repo] = [make_repo(f"b/demo-{n}", n, language="Dart") for n in range(3)]
    github.set_repos([*repos, make_repo("b/tool", 9, language="Dart")])
    before = REGISTRY.get_sample_value("codelupe_crawl_repositories_total", {"outcome": "refused"}) or 0
    result = run()
    assert result.exit_code == 0, result.output
    assert sorted(result.stdout.splitlines()[0].partition(": ")[2].split(", ")) == ["1 queued", "3 refused"]
    assert "windows: 1 read, 0 split, 0 left, 0 kept for later" in result.stdout
    assert "refused: 3 demo" in result.stdout
    assert "`codelupe ingest work` or `codelupe up` reads what is queued" in result.stdout
    assert REGISTRY.get_sample_value("codelupe_crawl_repositories_total", {"outcome": "refused"}) == before + 3
    assert REGISTRY.get_sample_value("codelupe_crawl_windows", {"state": "done"}) == 1
    assert REGISTRY.get_sample_value("codelupe_crawl_limit_remaining", {"resource": "search"}) == 999_999


def test_watching_it_crawls_again_after_the_interval_until_it_is_stopped(
    run: Callable[..., Result], github: FakeGithub
) -> None:
    def stop_later() -> None:
        if len(github.queries) >= 3:
            os.kill(os.getpid(), signal.SIGTERM)

    github.set_repos([make_repo("b/tool", 9, language="Dart")])
    github.on_request = stop_later
    result = run("--watch", "--json", crawl_interval_h=0.0001)
    assert result.exit_code == 0, result.output
    passes = [json.loads(line)["passes"]["dart"] for line in result.stdout.splitlines()]
    assert passes[:3] == ["full", "pushed", "pushed"]
