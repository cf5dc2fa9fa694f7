"""Opt-outs and lists: what people write into files, and what comes of it."""

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from pydantic import SecretStr

from ingest.commands import ingest as ingest_group
from ingest.config import IngestSettings
from schema.audit import audit
from schema.config import DatabaseSettings
from schema.lines import open_line
from schema.repositories import add_source, claim_repository, renew_repository
from tests.builders import add_files, add_repository, hold_line, open_run
from tests.ingest.helpers import Settings


class _Terminal(io.TextIOWrapper):
    """A screen, as far as anybody asks."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Callable[..., Result]:
    """Call it with the arguments of `codelupe ingest`, and settings."""

    def invoke(*arguments: str, **values: Any) -> Result:
        database = DatabaseSettings(database_url=SecretStr(database_url))
        settings = SimpleNamespace(home=tmp_path, database=database, ingest=IngestSettings(**values))
        return CliRunner().invoke(ingest_group, arguments, obj=settings)

    return invoke


def fetch(engine: sa.Engine, sql: str) -> list[tuple[Any, ...]]:
    with engine.begin() as conn:
        return [tuple(row) for row in conn.execute(sa.text(sql))]


SOURCES = "SELECT source, licence, priority FROM repositories ORDER BY id"


def test_a_text_list_is_added(run: Callable[..., Result], engine: sa.Engine, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# ours\n\nhttps://github.com/a/b  # a remark\nhttps://gitlab.com/c/d.git\n")
    assert run("add", "--list", str(tmp_path / "list"), "--licence", "MIT", "--priority", "4").exit_code == 0
    assert fetch(engine, SOURCES) == [("https://github.com/a/b", "MIT", 4), ("https://gitlab.com/c/d", "MIT", 4)]


def test_a_csv_list_says_licence_and_priority_itself(
    run: Callable[..., Result], engine: sa.Engine, tmp_path: Path
) -> None:
    text = 'source,licence,priority\nhttps://github.com/a/b,"MIT",7\nhttps://github.com/a/c,,\nhttps://github.com/a/d\n'
    (tmp_path / "list.csv").write_text("\ufeff" + text)
    assert run("add", "--list", str(tmp_path / "list.csv"), "--licence", "0BSD").exit_code == 0
    assert fetch(engine, SOURCES) == [
        ("https://github.com/a/b", "MIT", 7),
        ("https://github.com/a/c", "0BSD", 0),
        ("https://github.com/a/d", "0BSD", 0),
    ]


@pytest.mark.parametrize(("num", "shows_bar"), [(1, False), (3, True)])
def test_several_sources_have_a_bar_on_a_terminal_and_a_line_each(
    num: int, shows_bar: bool, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [f"https://github.com/a/{number}" for number in range(num)]
    (tmp_path / "list").write_text("\n".join(sources))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.stderr", screen := _Terminal(io.BytesIO(), "utf-8"))
    ingest_group.main(["add", "--list", str(tmp_path / "list")], obj=settings, standalone_mode=False)
    screen.seek(0)
    shown = screen.read()
    assert (f"{num}/{num}" in shown) is shows_bar
    cleared = "\x1b[2K" if shows_bar else ""  # a line never goes on where the bar ends
    assert all(f"{cleared}added: git {source}\n" in shown for source in sources)


def test_a_list_says_nothing_but_a_line_each_where_there_is_no_terminal(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "list").write_text("https://github.com/a/b\nhttps://github.com/a/c\n")
    shown = run("add", "--list", str(tmp_path / "list"))
    lines = ["added: git https://github.com/a/b", "added: git https://github.com/a/c"]
    assert (shown.stdout, shown.stderr.splitlines()) == ("", lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("https://github.com/a/b\nnot-there\n\nssh://x\n", ["list:2: ", "no such folder", "list:4: ", "use the https"]),
        ("source,stars\nhttps://github.com/a/b,4\n", ["unknown columns", "source,licence,priority"]),
        ("source,priority\nhttps://github.com/a/b,high\n", ["list:2: priority 'high' is no whole number"]),
        ("source\nhttps://github.com/a/b,MIT\n", ["list:2: 2 values for 1 columns"]),
        (None, ["cannot be read", "give a text or CSV file"]),
    ],
)
def test_a_list_with_mistakes_adds_nothing_and_names_them_all(
    text: str | None, says: list[str], run: Callable[..., Result], engine: sa.Engine, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "list").write_text(text)
    result = run("add", "--list", str(tmp_path / "list"))
    assert result.exit_code == 1
    assert [words for words in says if words not in result.stderr] == []
    assert fetch(engine, SOURCES) == []


def test_who_opts_out_leaves_queue_and_training_and_the_contents_go(
    run: Callable[..., Result], engine: sa.Engine
) -> None:
    with engine.begin() as conn:
        open_line(conn, name="qwen", base_model="base")
        add_files(conn, add_repository(conn, "https://github.com/alice/tool"), 3)
        add_files(conn, add_repository(conn, "https://github.com/bob/tool"), 2)
        add_source(conn, source="https://github.com/alice/other", kind="git", owner="alice", name="other")
        claim = claim_repository(conn, lease_s=60)
    result = run("opt-out", "https://github.com/Alice/*")
    assert result.exit_code == 0, result.output
    assert result.stderr == "taken out: 2 sources, 3 files, 3 contents\n"
    assert result.stdout == "alice/*\n"
    assert fetch(engine, "SELECT source, state, reason FROM repositories ORDER BY id") == [
        ("https://github.com/alice/tool", "refused", "opted_out"),
        ("https://github.com/bob/tool", "done", None),
        ("https://github.com/alice/other", "refused", "opted_out"),
    ]
    files = fetch(
        engine, "SELECT excluded_reason, content IS NULL, count(*) FROM processed_files GROUP BY 1, 2 ORDER BY 2"
    )
    assert files == [(None, False, 2), ("opted_out", True, 3)]
    with engine.begin() as conn:
        assert claim is not None
        assert not renew_repository(conn, claim, lease_s=60), "the worker that was at it finds out"
        assert audit(conn).by_line["qwen"]["excluded"] == 3
        assert audit(conn).rows_unaccounted == 0


def test_an_open_run_keeps_what_it_reads_until_it_is_over(run: Callable[..., Result], engine: sa.Engine) -> None:
    with engine.begin() as conn:
        line_id = open_line(conn, name="qwen", base_model="base").id
        add_files(conn, add_repository(conn, "https://github.com/alice/tool"), 3)
        assert open_run(conn, line_id, hold_line(conn)) is not None
    assert run("opt-out", "alice/tool").stderr == "taken out: 1 sources, 3 files, 0 contents\n"
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE training_runs SET state = 'promoted'"))
    assert run("opt-out").stderr == "taken out: 0 sources, 0 files, 3 contents\n"


def test_an_open_run_keeps_what_it_replays_too(run: Callable[..., Result], engine: sa.Engine) -> None:
    with engine.begin() as conn:
        line_id, lease = open_line(conn, name="qwen", base_model="base").id, hold_line(conn)
        add_files(conn, add_repository(conn, "https://github.com/alice/tool"), 3)
        assert open_run(conn, line_id, lease) is not None
        conn.execute(sa.text("UPDATE training_runs SET state = 'promoted'"))
        add_files(conn, add_repository(conn, "https://github.com/bob/tool"), 3)
        assert open_run(conn, line_id, lease, replay_share=1.0) is not None

    assert run("opt-out", "alice/tool").stderr == "taken out: 1 sources, 3 files, 0 contents\n"


def test_what_is_opted_out_is_not_added_until_that_is_taken_back(
    run: Callable[..., Result], engine: sa.Engine, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("# they asked\nalice/tool\n")
    added = run("add", "https://github.com/Alice/Tool", "https://github.com/bob/tool", opt_out=[tmp_path / "out"])
    assert "not added: https://github.com/alice/tool is opted out" in added.stderr
    assert [source for source, *_ in fetch(engine, SOURCES)] == ["https://github.com/bob/tool"]
    assert run("opt-out", "alice/tool", "--forget").stdout == "\n"
    assert "added: git https://github.com/alice/tool" in run("add", "https://github.com/alice/tool").stderr


@pytest.mark.parametrize("text", ["alice", "*", "alice tool", "https://github.com/"])
def test_a_pattern_that_is_none_is_refused_with_its_line(text: str, run: Callable[..., Result], tmp_path: Path) -> None:
    assert "write owner/name" in run("opt-out", text).stderr
    (tmp_path / "out").write_text(f"a/b\n{text}\n")
    result = run("opt-out", opt_out=[tmp_path / "out"])
    assert (result.exit_code, f"{tmp_path / 'out'}:2: " in result.stderr) == (1, True)
