"""`codelupe train base` and `train range-test`: what they hand to their child, and what they leave behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.corpus import CorpusError, read_corpus
from daemon.publish import verify_folder
from schema.database import create_engine
from schema.lines import open_line
from tests.processes import ROOT, steer
from tests.rows import audit_of, store_rows

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "config").write_text("[core]\n")
    (folder / "binary.bin").write_bytes(b"\xff\xfe\x00")
    (folder / "empty.py").write_text("\n")
    for number in range(5):
        (folder / f"m{number}.py").write_text(f"def f{number}():\n    return {number}\n")
    return folder


@pytest.fixture
def run(home: Path) -> Run:
    """Run `codelupe train WORDS…` with a stand-in for the child."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CODELUPE_")}

    def call(*words: Any, status: int = 0, **settings: Any) -> subprocess.CompletedProcess[str]:
        ours = {f"CODELUPE_{name.upper()}": str(value) for name, value in ({"home": home} | settings).items()}
        command = [sys.executable, "-m", "tests.processes", "train", *map(str, words)]
        done = subprocess.run(command, env=kept | ours, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == status, done.stderr
        return done

    return call


def test_a_base_says_what_it_was_made_of_and_is_never_overwritten(
    run: Run, home: Path, texts: Path, tmp_path: Path
) -> None:
    words = ("base", tmp_path / "made", "--tokens", "5K", "--architecture", "gpt2", "--data", texts, "--json")
    (home / "runs" / "_bases" / "made").mkdir(parents=True)
    (home / "runs" / "_bases" / "made" / "smaller.json").touch()  # of another base that had this name
    done = run(*words)
    assert "each text is more than 10% of all, so none is held out" in done.stderr
    planned = "4 sequences per forward pass, 1 layers recomputed: 3.00 GiB of memory as planned (weights 1.00 GiB, opt"
    assert planned in done.stderr
    told = json.loads(done.stdout)
    manifest = verify_folder(tmp_path / "made", told["manifest_digest"])
    assert (manifest["made"], manifest["architecture"], manifest["from"]) == ("from scratch", "gpt2", None)
    assert manifest["data"] == str(texts)
    assert manifest["held_out"]["texts"] == 0
    assert manifest["training"]["tokens"] == told["tokens"] == 1000
    assert manifest["training"]["validation_loss"] == told["validation_loss"] == 1.5
    assert manifest["training"]["validation_bits_per_byte"] == told["validation_bits_per_byte"] == 0.75
    assert [path.name for path in (home / "runs" / "_bases" / "made").iterdir()] == ["child.log"]
    assert "never overwritten" in run(*words, status=2).stderr


def test_what_was_broken_off_goes_on_with_the_same_settings_only(
    run: Run, home: Path, texts: Path, tmp_path: Path
) -> None:
    words = ("base", tmp_path / "made", "--tokens", "5K", "--data", texts)
    steer(home, fail={"step": 7, "reason": "device"})
    assert "asked to fail in step 7" in run(*words, status=1).stderr
    steer(home)
    assert "was begun with other settings" in run(*words, status=2, num_layers=3).stderr
    assert "validation loss 1.500 (0.750 bits per byte)" in run(*words).stdout
    assert "resumed from checkpoint-00000006" in (home / "runs" / "_bases" / "made" / "child.log").read_text()
    assert (tmp_path / "made" / "manifest.json").exists()


def test_of_the_database_only_the_training_side_is_read_and_nothing_is_claimed(
    run: Run, home: Path, database_url: str, tmp_path: Path
) -> None:
    engine = create_engine(database_url, application_name="tests")
    with engine.begin() as conn:
        open_line(conn, name="tiny", base_model="local:tiny")
    engine.dispose()
    store_rows(database_url)
    steer(home, fail={"step": 1, "reason": "device"})  # the job stays, to be looked at
    run("base", tmp_path / "made", "--tokens", "1M", status=1, database_url=database_url)
    lines = (home / "runs" / "_bases" / "made" / "members.jsonl").read_text().splitlines()
    paths = {json.loads(line)["path"] for line in lines}
    assert paths == {f"src_{number}/code.py" for number in range(30)}
    assert audit_of(database_url).by_state["pending"] == 30


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tokens", "many"], "is no number of tokens"),
        (["--tokens", "0"], "is no number of tokens"),
        (["--tokens", "1M", "--from", "some/base", "--architecture", "gpt2"], "leave --architecture out"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, tmp_path: Path, words: list[str], said: str) -> None:
    assert said in run("base", tmp_path / "made", *words, status=2).stderr


def test_a_range_test_suggests_a_rate_and_keeps_nothing(run: Run, home: Path, texts: Path) -> None:
    told = json.loads(run("range-test", "--data", texts, "--json").stdout)
    assert len(told["points"]) == 30
    assert told["learning_rate"] == told["steepest"] > 1e-6
    shown = run("range-test", "--data", texts).stdout
    assert f"suggested: CODELUPE_LEARNING_RATE={told['learning_rate']:.1e}" in shown
    assert list((home / "runs" / "_range-tests").iterdir()) == []
    assert not (home / "models").exists()


def test_a_folders_text_comes_in_an_order_of_its_own_without_what_is_hidden_or_no_text(texts: Path) -> None:
    items = list(read_corpus(texts))
    assert sorted(item.path for item in items) == [f"m{number}.py" for number in range(5)]
    assert [item.path for item in items] != sorted(item.path for item in items)
    assert {item.language for item in items} == {"python"}


def test_json_lines_are_read_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"content": "x = 1", "path": "b.py"}\n{"text": "Words."}\n')
    assert [(item.path, item.content) for item in read_corpus(file)] == [("b.py", "x = 1"), ("texts.jsonl:2", "Words.")]


@pytest.mark.parametrize("line", ["no JSON", "[1]", '{"title": "x"}', '{"text": 3}', ""])
def test_a_line_that_holds_no_text_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(f'{{"text": "Words."}}\n{line}\n')
    with pytest.raises(CorpusError, match=r"texts\.jsonl, line 2"):
        list(read_corpus(file))


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="there is no text in it"):
        list(read_corpus(tmp_path))
