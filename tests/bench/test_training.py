"""The training bench runs: every contestant trains, and what it prints is whole. No figure of speed is looked at."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONTESTANTS = ["ours", "stock_padded", "stock_packed", "trl"]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.training", "--quick", "--overheads", "--threads", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_every_contestant_learns_from_the_same_samples(report: dict[str, Any]) -> None:
    for name in CONTESTANTS:
        assert report[name].keys() == {"tokens_per_s", "peak_rss_mb", "loss"}
        assert report[name]["tokens_per_s"] > 0
        assert report[name]["peak_rss_mb"] > 100
        assert report[name]["loss"] < report["base_loss"]
    assert max(report[name]["loss"] for name in CONTESTANTS) < 1.02 * min(report[name]["loss"] for name in CONTESTANTS)
    first, *others = [report["turns"][name] for name in CONTESTANTS]
    assert len(first) == 3
    for turns in others:
        assert sum(turn["tokens"] for turn in turns) == pytest.approx(sum(turn["tokens"] for turn in first), rel=0.1)


def test_the_figures_of_the_shape_asked_for_are_at_the_top(report: dict[str, Any]) -> None:
    assert report["shape"] == "micro"
    assert list(report["shapes"]) == ["micro"]
    assert report["shapes"]["micro"].items() <= report.items()
    ratio = report["ours"]["tokens_per_s"] / report["stock_padded"]["tokens_per_s"]
    assert report["ratio_padded"] == pytest.approx(ratio, rel=1e-2)
    ratio = report["ours"]["tokens_per_s"] / report["stock_packed"]["tokens_per_s"]
    assert report["ratio_packed"] == pytest.approx(ratio, rel=1e-2)


def test_our_rows_are_full_and_our_step_does_nothing_twice(report: dict[str, Any]) -> None:
    assert report["packing_density"] > 0.9
    assert 0 <= report["leak"] <= 1e-5
    assert 0.9 < report["flops_ratio"] < 1.2


def test_what_is_not_arithmetic_is_told_by_its_share(report: dict[str, Any]) -> None:
    overheads = report["overheads"]
    assert overheads["bare_ms_per_step"] > 0
    shares = {name: share for name, share in overheads.items() if name.endswith("_share") and name != "trainer_share"}
    assert shares.keys() == {
        "logging_share",
        "data_wait_share",
        "evaluation_flops_share",
        "evaluation_share",
        "checkpoint_share",
    }
    assert all(0 < share < 1 for share in shares.values()), shares
    assert overheads["checkpoint_s"] > 0
