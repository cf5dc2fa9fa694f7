"""The bench of many rounds: a small one goes through, and its figures are what they say."""

import json

import pytest

from tests.bench import continual
from tests.bench.continual_report import summarise


def told(runs: str, base: dict[str, float], before: dict[str, float], after: dict[str, float]) -> dict[str, object]:
    return {"runs": runs.split(", "), "base": base, "before": before, "after": after}


def test_a_source_counts_as_earlier_code_once_a_version_was_trained_on_it() -> None:
    base = {"anchor": 2.0, "a": 3.0, "b": 3.0, "c": 3.0}
    rounds = [
        told("adapter held", base, {"anchor": 2.0, "a": 3.0}, {"anchor": 2.0, "a": 3.0}),
        told("adapter promoted", base, base, {"anchor": 2.02, "a": 2.0, "b": 2.0}),
        told(
            "consolidation held, adapter promoted",
            base,
            {"anchor": 2.02, "a": 2.0, "b": 2.0, "c": 3.0},
            {"anchor": 2.0, "a": 2.1, "b": 2.04, "c": 2.0},
        ),
    ]

    found = summarise(rounds, ["anchor", "a", "b", "c"])

    assert found["regression_by_round"] == pytest.approx([0.0, 0.01, 0.12 / 6.02], abs=1e-5)
    assert found["worst_regression_of_a_round"] == pytest.approx(0.12 / 6.02, abs=1e-5)
    assert found["regression_over_all_rounds"] == pytest.approx(0.14 / 6.0, abs=1e-5)
    assert found["worst_source"] == (pytest.approx(0.05), "a")
    assert (found["promoted"], found["gain"]) == (2, pytest.approx(1 - 8.14 / 11.0, abs=1e-5))


def test_a_small_experiment_goes_through_real_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    continual.main(["--quick", "--json"])

    report = json.loads(capsys.readouterr().out)
    (arm,) = report["arms"].values()
    assert report["sources"] == ["anchor", "01-1", "02-2", "03-3"]
    assert [len(one["runs"]) >= 1 for one in arm["rounds"]] == [True] * 3
    assert set(arm["rounds"][-1]["after"]) <= set(report["sources"])
    assert report["base"]["epochs_2"]["bits_per_byte"] < report["base"]["epochs_1"]["bits_per_byte"]
