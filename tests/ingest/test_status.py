"""`codelupe ingest status` and `report`: what a person sees of the queue, and of one source file by file."""

import html.parser
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import Result

from monitoring import metrics
from schema.lines import open_line
from schema.repositories import add_source, claim_repository
from tests.builders import claim_source, finish, make_file, save
from tests.ingest.helpers import make_code

Run = Callable[..., Result]
HOSTILE = '<script>alert("x")</script>.py'
FILES = {
    "LICENSE": "Released under the MIT License.",
    "a.py": make_code("a"),
    "copy.py": make_code("a"),
    HOSTILE: make_code("h"),
    "\u202egnp.py": "x\n",
    "tests/<b>bold.py": make_code("t"),
    "words.txt": "text",
}


@pytest.fixture
def root(run: Run, make_folder: Callable[..., Path]) -> Path:
    """A folder that was ingested."""
    root = make_folder("tool", FILES)
    run("add", str(root))
    assert run("work", "--drain", "--no-server").exit_code == 0
    return root


class Page(html.parser.HTMLParser):
    """The tags, the attributes and the texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_status_shows_pace_reasons_rows_and_licences(run: Run, root: Path, engine: sa.Engine) -> None:
    report = json.loads(run("status", "--json").stdout)
    assert report["queue"]["done"] == 1
    assert report["refusals"] == {"language": 2, "path_encoding": 1, "test": 1}
    assert sum(report["rows"]["python"].values()) == 2
    assert (report["excluded"], report["licences"], report["eta_s"]) == ({"duplicate": 1}, {"MIT": 2}, 0)
    assert all(report["rates"][name] > 0 for name in ("files_per_s", "bytes_per_s", "repositories_per_h"))
    shown = run("status").stdout
    assert "refused: 2 language, 1 path_encoding, 1 test\n" in shown
    assert "licences: 2 MIT\n" in shown
    assert "repositories/h, 0s left\n" in shown


def test_the_time_left_is_what_the_pace_of_the_last_hour_promises(run: Run, engine: sa.Engine) -> None:
    assert "last hour: no visit\n" in run("status").stdout
    with engine.begin() as conn:
        for number in range(2):
            finish(conn, claim_source(conn, f"/done/{number}"))
        conn.execute(
            sa.text(
                """UPDATE repositories SET visit_files = 600, visit_bytes = 1200000, visit_seconds = 1200,
                visited_at = now() - interval '10 minutes' * id"""
            )
        )
        for number in range(3):
            conn.execute(
                sa.text("INSERT INTO repositories (source, kind, origin, name) VALUES (:s, 'git', 'operator', 'n')"),
                {"s": f"/queued/{number}"},
            )
    report = json.loads(run("status", "--json").stdout)
    # The earliest visit began forty minutes ago: two in that time are three an hour.
    expected = {"files_per_s": 0.5, "bytes_per_s": 1000.0, "repositories_per_h": 3.0}
    assert report["rates"] == pytest.approx(expected, rel=0.01)
    assert report["eta_s"] == pytest.approx(3600, rel=0.01)


def test_a_report_says_of_every_file_whether_it_was_accepted_and_why(run: Run, root: Path) -> None:
    report = json.loads(run("report", str(root), "--json").stdout)
    assert {file["path"]: file["excluded"] for file in report["accepted"]} == {
        "a.py": None,
        "copy.py": "duplicate",
        HOSTILE: None,
    }
    first = report["accepted"][0]
    assert set(first["components"]) == {"structure", "documentation", "complexity", "naming", "security"}
    assert (first["licence"], first["licence_evidence"]) == ("MIT", "LICENSE: MIT")
    assert [(file["path"], file["reason"]) for file in report["refused"]] == [
        (r"\u202egnp.py", "path_encoding"),
        ("tests/<b>bold.py", "test"),
    ]
    assert report["refused_unlisted"] == {"language": 2}
    shown = run("report", str(root)).stdout
    assert f"copy.py  not trained on: duplicate of {root} a.py" in shown
    assert "3 accepted, the best first; not trained on: 1 duplicate\n" in shown
    assert "4 refused\n      2  language: is in none of languages, or is no code\n" in shown
    kept = "is a test by its name or folder; keep_tests keeps it"
    assert f"      1  test: {kept}\n           tests/<b>bold.py  folder tests\n" in shown
    assert report["reasons"]["test"] == {"files": 1, "meaning": kept}
    assert run("report", root.name).stdout == shown


def test_the_page_needs_nothing_else_and_escapes_what_strangers_wrote(run: Run, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    assert run("report", str(root), "--html", str(file)).stderr == f"{file}: 3 accepted, 4 refused\n"
    page = Page(file.read_text())
    assert page.tags <= {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "table", "tr", "th", "td"}
    assert page.names <= {"lang", "charset", "http-equiv", "content", "class"}
    assert {HOSTILE, "tests/<b>bold.py", r"\u202egnp.py", "path_encoding"} <= set(page.texts)


def test_a_capped_file_says_so(run: Run, engine: sa.Engine) -> None:
    with engine.begin() as conn:
        open_line(conn, name="qwen", base_model="base", max_owner_rows=1)
        add_source(conn, source="https://x/o/found", kind="git", origin="crawler", owner="o", name="found")
        claim = claim_repository(conn, lease_s=60)
        assert claim is not None
        save(conn, claim, make_file(), make_file())
    report = json.loads(run("report", "https://x/o/found", "--json").stdout)
    assert sorted(str(file["excluded"]) for file in report["accepted"]) == ["None", "owner_cap"]


def test_a_source_that_is_not_stored_is_named_with_those_that_are_like_it(run: Run, root: Path) -> None:
    for text in ("https://example.org/alice/tool", str(root)[-9:-1]):
        refused = run("report", text)
        assert refused.exit_code == 1
        assert f"{text}: no such source is stored" in refused.stderr
    assert f"; there are {root}\n" in refused.stderr


def test_languages_are_counted_under_known_names_alone(run: Run, root: Path) -> None:
    names = {sample.labels["language"] for family in metrics.INGEST_LANGUAGES.collect() for sample in family.samples}
    assert "python" in names
    assert names <= {"python", "rust", "go", "typescript", "javascript", "dart", "other"}
