"""`codelupe ingest` as a person uses it."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from pydantic import SecretStr, ValidationError

from ingest.commands import ingest as ingest_group
from ingest.config import IngestSettings
from ingest.judge import judge_file
from ingest.serving import serve_ingest
from monitoring.config import MonitoringSettings
from schema.config import DatabaseSettings
from tests.ingest.helpers import SETTINGS, make_code


@dataclass(frozen=True)
class Settings:
    """The sections that the commands need."""

    home: Path
    database: DatabaseSettings
    monitoring: MonitoringSettings
    ingest: IngestSettings


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings on the fresh database, with a free port."""
    database = DatabaseSettings(database_url=SecretStr(database_url))
    return Settings(tmp_path / "home", database, MonitoringSettings(ingest_port=0), SETTINGS)


@pytest.fixture
def run(settings: Settings) -> Iterator[Callable[..., Result]]:
    """Call it with the arguments of `codelupe ingest`."""
    return lambda *arguments: CliRunner().invoke(ingest_group, list(arguments), obj=settings)


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
        (("add",), 2, "name at least one source, or --stdlib"),
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


def test_it_explains_a_file_by_the_code_of_the_worker(
    run: Callable[..., Result], make_folder: Callable[..., Path], settings: Settings, engine: sa.Engine
) -> None:
    file = make_folder("tool", {"a.py": "# SPDX-License-Identifier: MIT\n" + make_code("a")}) / "a.py"
    report = json.loads(run("explain", str(file), "--json").stdout)
    assert report == judge_file("a.py", file.read_bytes(), settings.ingest.limits, is_executable=False).to_json()
    assert (report["language"], report["accepted"], report["reason"], report["licence"]) == (
        "python",
        True,
        None,
        "MIT",
    )
    run("add", str(file.parent))
    run("work", "--drain")
    with engine.begin() as conn:
        stored = conn.execute(sa.text("SELECT quality_score, score_detail, licence FROM processed_files")).one()
    assert stored.quality_score == report["score"]
    assert stored.score_detail == {"components": report["components"], "details": report["details"]}
    assert stored.licence == "MIT"
    shown = run("explain", str(file)).stdout
    assert f"accepted, score {report['score']:.1f} of 100" in shown
    assert all(name in shown for name in report["components"])


@pytest.mark.parametrize(("mode", "accepted"), [(0o755, True), (0o644, False)])
def test_it_explains_a_script_without_extension_as_the_worker_judges_it(
    mode: int, accepted: bool, run: Callable[..., Result], make_folder: Callable[..., Path], engine: sa.Engine
) -> None:
    file = make_folder("tool", {"run": "#!/usr/bin/env python3\n" + make_code("run")}) / "run"
    file.chmod(mode)
    report = json.loads(run("explain", str(file), "--json").stdout)
    assert report["accepted"] is accepted
    run("add", str(file.parent))
    run("work", "--drain")
    with engine.begin() as conn:
        assert conn.execute(sa.text("SELECT count(*) FROM processed_files")).scalar_one() == accepted


def test_it_explains_a_refusal_in_words(run: Callable[..., Result], make_folder: Callable[..., Path]) -> None:
    file = make_folder("tool", {"a.py": make_code("a")}) / "a.py"
    shown = run("explain", str(file), "--path", "node_modules/a.py").stdout
    assert "refused: vendored (folder node_modules)" in shown


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
