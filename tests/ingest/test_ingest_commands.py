"""`codelupe ingest` as a person uses it."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import Result
from pydantic import ValidationError

from ingest.advice import ADVICE, FILES
from ingest.config import IngestSettings
from ingest.github.accept import REASONS
from ingest.messages import FAILURES, FILE_REASONS
from ingest.serving import ingest_beside, serve_ingest
from monitoring.metrics import REGISTRY
from monitoring.progress import Progress
from tests.ingest.helpers import Settings, make_code
from tests.waiting import DEADLINE_S


def test_it_adds_works_and_shows(run: Callable[..., Result], make_folder: Callable[..., Path]) -> None:
    root = make_folder("tool", {"a.py": make_code("a"), "b.py": "x", "c.txt": "text"})
    added = run("add", str(root), "--licence", "MIT")
    assert (added.exit_code, added.stdout, added.stderr) == (0, "", f"added: folder {root}\n")
    assert "queued" not in run("add", str(root)).stdout
    assert run("work", "--drain").exit_code == 0
    report = json.loads(run("status", "--json").stdout)
    assert report["queue"] == {"queued": 0, "working": 0, "done": 1, "refused": 0, "dead": 0}
    assert report["refusals"] == {"too_short": 1, "language": 1}
    source = report["sources"][0]
    assert (source["source"], source["state"], source["file_count"], source["licence"]) == (str(root), "done", 1, "MIT")
    assert f"done    {root}: 1 files, score" in run("status").stdout
    assert run("add", str(root)).stderr == f"queued again: folder {root}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("add",), 2, "name at least one source, --list with entries, or --stdlib"),
        (("add", "/nowhere"), 1, "/nowhere: no such folder"),
        (("add", "git@github.com:a/b"), 1, "use the https:// address"),
        (("explain", "/nowhere"), 2, "does not exist"),
    ],
)
def test_it_names_what_it_cannot_use(
    arguments: tuple[str, ...], code: int, says: str, run: Callable[..., Result]
) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert says in result.stderr


def test_one_bad_source_adds_none(
    run: Callable[..., Result], make_folder: Callable[..., Path], engine: sa.Engine
) -> None:
    assert run("add", str(make_folder("good", {})), "/nowhere").exit_code == 1
    with engine.begin() as conn:
        assert conn.execute(sa.text("SELECT count(*) FROM repositories")).scalar_one() == 0


def test_what_a_name_would_do_to_the_terminal_is_not_done(
    run: Callable[..., Result], make_folder: Callable[..., Path]
) -> None:
    root = make_folder("tool", {"a\x1b[31m.py": make_code("a"), "test_\x1b[31m.py": make_code("b")})
    for name in ("a\x1b[31m.py", "test_\x1b[31m.py"):
        shown = run("explain", str(root / name)).stdout
        assert ("\x1b" in shown, r"\x1b[31m.py" in shown) == (False, True)
    refused = run("add", str(make_folder("two\nlines", {"a.py": make_code("a")})))
    assert refused.exit_code == 1
    assert r"two\nlines: the path is no printable UTF-8" in refused.stderr


def test_the_queue_says_why_a_source_was_refused_and_what_to_do(
    run: Callable[..., Result], make_folder: Callable[..., Path]
) -> None:
    root = make_folder("tool", {"c.txt": "text"})
    run("add", str(root))
    run("work", "--drain")
    says = "(nothing_accepted: no file was accepted; `ingest explain FILE` says why of each)"
    assert f"refused {root}: 0 files {says}" in run("status").stdout


def test_every_reason_has_its_advice() -> None:
    """Those that a child gives, those that the worker finds, and those that the crawler refuses for."""
    own = {
        "child_broken",
        "database_away",
        "licence",
        "nothing_accepted",
        "stopped",
        "timeout",
        "worker_died",
    }
    assert set(ADVICE) == FAILURES | own | REASONS | {"clones_full", "worker_died"}
    assert set(FILES) == FILE_REASONS


def test_ingest_beside_the_daemon_begins_again_when_it_has_broken_off(
    settings: Settings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def breaks_off_once(*_: object, stop: threading.Event, **__: object) -> None:
        if not begun.is_set():
            begun.set()
            raise NotADirectoryError("repos")
        again.set()
        stop.wait()

    again = threading.Event()
    monkeypatch.setattr("ingest.serving.work", breaks_off_once)
    monkeypatch.setattr("ingest.serving._AGAIN_S", 0.01)
    before = REGISTRY.get_sample_value("codelupe_loop_errors_total", {"loop": "ingest"}) or 0
    with Progress() as progress, ingest_beside(settings, engine, progress):
        assert again.wait(DEADLINE_S)
    assert REGISTRY.get_sample_value("codelupe_loop_errors_total", {"loop": "ingest"}) == before + 1


def test_it_serves_its_health_and_metrics(
    settings: Settings, engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with serve_ingest(settings, engine):
        url = next(str(vars(record)["url"]) for record in caplog.records if "url" in vars(record))
        with urllib.request.urlopen(url + "health") as answer:
            assert json.load(answer)["status"] == "ok"
        with urllib.request.urlopen(url + "metrics") as answer:
            assert b"codelupe_ingest_files_total" in answer.read()
        with urllib.request.urlopen(url + "status") as answer:
            assert json.load(answer)["ingest"]["queue"]["queued"] == 0


def test_an_outage_degrades_it_and_is_no_reason_to_restart_it(
    settings: Settings, engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """The answers come from what the worker's loop has seen: no statement is sent for them."""
    caplog.set_level("INFO")
    statements: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    with serve_ingest(settings, engine) as signs:
        url = next(str(vars(record)["url"]) for record in caplog.records if "url" in vars(record))
        with urllib.request.urlopen(url + "status") as answer:
            before = json.load(answer)
        statements.clear()
        signs.away("connection refused")
        with urllib.request.urlopen(url + "health") as answer:
            body = json.load(answer)
            assert (answer.status, body["status"], body["reasons"]) == (200, "degraded", ["database_away"])
            assert body["details"] == {"database": "connection refused"}
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(url + "ready")
        with urllib.request.urlopen(url + "status") as answer:
            assert json.load(answer) == before
        signs.alive(database_up=True)
        with urllib.request.urlopen(url + "ready") as answer:
            assert json.load(answer) == {"ready": True, "reasons": []}
    assert statements == []


def test_a_full_disk_degrades_it_and_names_the_folder(
    settings: Settings, engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with serve_ingest(settings, engine) as signs:
        url = next(str(vars(record)["url"]) for record in caplog.records if "url" in vars(record))
        found = []
        for full_disk in ("/srv/home/repos", None, ""):
            signs.alive(full_disk=full_disk)
            with urllib.request.urlopen(url + "health") as answer:
                found.append(json.load(answer)["reasons"])
    assert found == [["disk_full: /srv/home/repos"], ["disk_full: /srv/home/repos"], []]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"train_share": 0.9, "validation_share": 0.2}, "more than 1"),
        ({"languages": ("cobol",)}, "cobol unknown; choose from python"),
        ({"max_file_bytes": 0}, "max_file_bytes"),
    ],
)
def test_the_configuration_is_checked(values: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        IngestSettings.model_validate(values)


def test_every_field_of_the_configuration_is_explained() -> None:
    assert all(field.description for field in IngestSettings.model_fields.values())
