"""`codelupe ingest explain`: it says what a visit would, and why."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import Result

from ingest.judge import judge_file
from tests.ingest.helpers import Settings, make_code

_ACCEPTED = "SELECT file_path FROM processed_files"


@pytest.fixture(autouse=True)
def _stay_below_the_tests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_explains_a_file_by_the_code_of_the_worker(
    run: Callable[..., Result], make_folder: Callable[..., Path], settings: Settings, engine: sa.Engine
) -> None:
    file = make_folder("tool", {"a.py": "# SPDX-License-Identifier: MIT\n" + make_code("a")}) / "a.py"
    report = json.loads(run("explain", str(file), "--json").stdout)
    judged = judge_file("tool/a.py", file.read_bytes(), settings.ingest.limits, is_executable=False).to_json()
    assert {name: report[name] for name in judged} == judged
    assert report["licence_allowed"]
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
    assert stored.score_detail == {
        "components": report["components"],
        "details": report["details"],
        "licence": "SPDX header: MIT",
    }
    assert stored.licence == "MIT"


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


def test_it_explains_the_licence_by_the_files_of_the_folders_above(
    run: Callable[..., Result], make_repository: Callable[..., Path]
) -> None:
    mine = {"LICENSE": "Released under the MIT License.", "src/a.py": make_code("a")}
    theirs = {"copied/COPYING": "GNU General Public License, version 3", "copied/b.py": make_code("b")}
    root = make_repository("tool", mine | theirs)
    assert "licence MIT (LICENSE: MIT): allowed\n" in run("explain", str(root / "src/a.py")).stdout
    shown = run("explain", str(root / "copied/b.py")).stdout
    assert "licence GPL-3.0-only (COPYING: GPL-3.0-only): not allowed for what the crawler finds\n" in shown


def test_it_explains_a_refusal_in_words(run: Callable[..., Result], make_folder: Callable[..., Path]) -> None:
    file = make_folder("tool", {"a.py": make_code("a")}) / "a.py"
    shown = run("explain", str(file), "--path", "node_modules/a.py").stdout
    assert "refused: vendored (folder node_modules)" in shown


def test_it_explains_a_file_that_is_too_large_without_reading_it_and_opens_no_device(
    run: Callable[..., Result], make_folder: Callable[..., Path]
) -> None:
    file = make_folder("tool", {"a.py": make_code("a")}) / "a.py"
    os.truncate(file, 2**40)
    assert f"refused: too_large ({2**40} bytes, more than 262144)" in run("explain", str(file)).stdout
    os.mkfifo(file.parent / "pipe.py")
    (file.parent / "link.py").symlink_to(file)
    for name, reason in (("pipe.py", "special"), ("link.py", "symlink")):
        refused = run("explain", str(file.parent / name))
        says = f"{name}: not a plain file; a visit refuses it as {reason}"
        assert (refused.exit_code, says in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("path", "refusal"), [("tests/waiting.py", "test (folder tests)"), ("vendor/a/b.py", "vendored (folder vendor)")]
)
def test_a_file_of_a_repository_is_judged_by_its_path_there_like_by_the_worker(
    path: str,
    refusal: str,
    run: Callable[..., Result],
    make_repository: Callable[..., Path],
    fetch: Callable[..., list[tuple[object, ...]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = make_repository("tool", {path: make_code("a"), "b.py": make_code("b")})
    monkeypatch.chdir((root / path).parent)
    shown = run("explain", Path(path).name).stdout
    assert f"{path}: python\n" in shown or f"{path}: no known language\n" in shown
    assert f"judged by this path, in the git repository {root}\n" in shown
    assert f"refused: {refusal}" in shown
    run("add", str(root))
    run("work", "--drain")
    assert fetch(_ACCEPTED) == [("b.py",)]


@pytest.mark.parametrize(
    ("folder", "arguments", "path", "origin"),
    [
        (".", ("tool/tests/a.py",), "tool/tests/a.py", "below the current folder"),
        ("tool/tests", ("a.py",), "a.py", "below the current folder"),
        ("tool", ("../tool/tests/a.py",), "tests/a.py", "below the current folder"),
        ("tool", ("tests/a.py", "--path", "src/b.py"), "src/b.py", "as --path says"),
        (
            "other",
            ("../tool/tests/a.py",),
            "{tmp_path}/tool/tests/a.py",
            "in no git repository; --path says where it lies in its source",
        ),
    ],
)
def test_without_a_repository_the_current_folder_counts(
    folder: str,
    arguments: tuple[str, ...],
    path: str,
    origin: str,
    run: Callable[..., Result],
    make_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_folder("tool", {"tests/a.py": make_code("a")})
    monkeypatch.chdir(make_folder(folder, {}))
    report = json.loads(run("explain", *arguments, "--json").stdout)
    assert (report["path"], report["path_origin"]) == (path.format(tmp_path=tmp_path), origin)
    assert report["accepted"] is ("tests" not in path)


def test_the_components_by_their_weights_add_up_to_the_score(
    run: Callable[..., Result], make_folder: Callable[..., Path]
) -> None:
    file = make_folder("tool", {"a.py": make_code("a")}) / "a.py"
    report = json.loads(run("explain", str(file), "--json").stdout)
    total = sum(report["weights"][name] * value for name, value in report["components"].items())
    assert total == pytest.approx(report["score"], abs=0.05)
    shown = run("explain", str(file)).stdout
    assert f"accepted, score {report['score']:.1f} of 100" in shown
    for name, value in report["components"].items():
        weight = report["weights"][name]
        assert re.search(rf"^  {name} +{value:.1f} × {weight:.2f} = +{weight * value:.1f}  ", shown, re.MULTILINE)


def test_risks_are_said_in_words(run: Callable[..., Result], make_folder: Callable[..., Path]) -> None:
    risky = make_code("b") + "\n\ndef run(text: str) -> object:\n    return eval(text)\n"
    root = make_folder("tool", {"a.py": make_code("a"), "b.py": risky})
    assert re.search(r"^  security .*  no risks$", run("explain", str(root / "a.py")).stdout, re.MULTILINE)
    line = risky.splitlines().index("    return eval(text)") + 1
    assert re.search(rf"^  security .*  eval at line {line}$", run("explain", str(root / "b.py")).stdout, re.MULTILINE)
