"""The gate, on made-up measurements."""

import json
import math

import numpy as np
import pytest

from daemon.gate import judge, measure_interval, min_groups
from daemon.job import ItemBits


def measure(
    num_files: int = 40,
    *,
    gain: float = 0.0,
    noise: float = 0.02,
    seed: int = 0,
    units: int = 40,
    base_gain: float = 0.1,
) -> list[ItemBits]:
    """Return files whose candidate gains so many bits per byte on the incumbent, which has `base_gain` on the base."""
    rng = np.random.default_rng(seed)
    items = []
    for number in range(num_files):
        num_bytes = int(rng.integers(200, 4000))
        incumbent = rng.normal(1.5, 0.4)
        candidate = incumbent - gain + rng.normal(0, noise)
        rates = {"base": incumbent + base_gain, "incumbent": incumbent, "candidate": candidate}
        items.append(
            ItemBits(
                item_id=number,
                unit=f"unit{number % units}",
                language=("python", "go")[number % 2],
                num_bytes=num_bytes,
                num_tokens=num_bytes // 3,
                bits={model: rate * num_bytes for model, rate in rates.items()},
            )
        )
    return items


def without(items: list[ItemBits], model: str) -> list[ItemBits]:
    return [one.model_copy(update={"bits": {k: v for k, v in one.bits.items() if k != model}}) for one in items]


def with_bits(items: list[ItemBits], model: str, value: float) -> list[ItemBits]:
    first, *others = items
    return [first.model_copy(update={"bits": first.bits | {model: value}}), *others]


def decide(items, *, confidence=0.99, rounds=1000, seed=1):
    return judge(items, confidence=confidence, rounds=rounds, seed=seed)


@pytest.mark.parametrize(
    ("items", "verdict", "reason"),
    [
        (measure(gain=0.05), "promote", "better_than_incumbent"),
        (without(measure(gain=0.05), "incumbent"), "promote", "better_than_base"),
        (measure(gain=-0.05), "reject", "worse_than_incumbent"),
        (without(measure(gain=-0.2), "incumbent"), "reject", "worse_than_base"),
        (measure(gain=0.05, base_gain=-0.2), "reject", "worse_than_base"),
        (measure(gain=0.0), "hold", "interval_contains_zero"),
        (measure(gain=0.001, noise=0.05), "hold", "interval_contains_zero"),
        (measure(7, gain=0.3), "hold", "too_few_held_out_files"),
        (measure(8, gain=0.3), "promote", "better_than_incumbent"),
        (measure(2, gain=-0.3), "reject", "worse_than_incumbent"),
        (with_bits(measure(gain=0.05), "candidate", math.nan), "reject", "not_finite"),
        (with_bits(measure(gain=0.05), "candidate", math.inf), "reject", "not_finite"),
        (with_bits(measure(gain=0.05), "incumbent", math.nan), "hold", "reference_not_finite"),
        (with_bits(measure(gain=0.05), "base", math.inf), "hold", "reference_not_finite"),
        ([], "hold", "no_held_out_files"),
        ([one.model_copy(update={"num_bytes": 0}) for one in measure()], "hold", "no_held_out_files"),
    ],
)
def test_the_verdict_follows_from_the_interval(items, verdict, reason):
    gate = decide(items)

    assert (gate.verdict, gate.reason) == (verdict, reason)


def test_the_figures_are_ratios_of_sums():
    items = measure(gain=0.05)
    num_bytes = sum(item.num_bytes for item in items)
    expected = {
        model: sum(item.bits[model] for item in items) / num_bytes for model in ("base", "incumbent", "candidate")
    }

    gate = decide(items)

    assert gate.bits_per_byte == pytest.approx(expected)
    assert gate.delta == pytest.approx(expected["candidate"] - expected["incumbent"])
    assert gate.against_base.delta == pytest.approx(expected["candidate"] - expected["base"])
    assert gate.low < gate.delta < gate.high
    assert (gate.num_files, gate.num_bytes) == (40, num_bytes)


@pytest.mark.parametrize(("units", "resampled"), [(12, "unit"), (11, "file"), (1, "file")])
def test_units_are_resampled_if_there_are_twelve_and_files_if_not(units, resampled):
    gate = decide(measure(gain=0.05, units=units))

    assert (gate.resampled, gate.num_units) == (resampled, units)


def test_files_of_one_unit_that_err_together_do_not_count_as_independent():
    rng = np.random.default_rng(5)
    shifts = rng.normal(0.02, 0.06, 14)
    items = [
        one.model_copy(
            update={"bits": one.bits | {"candidate": one.bits["incumbent"] - shifts[number % 14] * one.num_bytes}}
        )
        for number, one in enumerate(measure(1400, units=14, noise=0.0))
    ]
    as_if_independent = [one.model_copy(update={"unit": f"file{number}"}) for number, one in enumerate(items)]

    assert decide(items).verdict == "hold"
    assert decide(as_if_independent).verdict == "promote"


def test_a_candidate_that_is_no_better_is_promoted_no_more_often_than_the_confidence_allows():
    verdicts = [decide(measure(30, seed=seed, units=30), confidence=0.9, rounds=400).verdict for seed in range(200)]

    assert verdicts.count("promote") <= 20
    assert verdicts.count("hold") >= 160


def test_the_same_seed_gives_the_same_interval_and_another_seed_hardly_another():
    items = measure(gain=0.01)

    first, again, other = decide(items), decide(items), decide(items, seed=2)

    assert first == again
    assert first.low != other.low
    assert first.low == pytest.approx(other.low, abs=0.003)


def test_resampling_in_parts_covers_every_round(monkeypatch):
    items = measure(200, gain=0.01, units=200)
    whole = decide(items)

    monkeypatch.setattr("daemon.gate._CELLS", 30_000)

    assert decide(items).low == pytest.approx(whole.low, abs=0.002)


@pytest.mark.parametrize(("confidence", "num"), [(0.99, 8), (0.95, 6), (0.9, 5), (0.5, 2)])
def test_fewer_files_than_a_unanimous_sign_test_needs_promote_nothing(confidence, num):
    assert min_groups(confidence) == num
    assert 2 * 0.5**num <= 1 - confidence + 1e-9 < 2 * 0.5 ** (num - 1)


def test_a_higher_confidence_gives_a_wider_interval():
    narrow, wide = (decide(measure(), confidence=confidence) for confidence in (0.8, 0.99))

    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_interval_of_equal_differences_is_a_point():
    interval = measure_interval(np.full(20, -50.0), np.full(20, 1000.0), confidence=0.99, rounds=300, seed=0)

    assert (interval.low, interval.delta, interval.high) == pytest.approx((-0.05, -0.05, -0.05))


@pytest.mark.parametrize("items", [measure(gain=0.05), [], with_bits(measure(), "candidate", math.nan)])
def test_what_is_recorded_is_strict_json(items):
    written = json.dumps(decide(items).as_inputs(), allow_nan=False)

    assert json.loads(written)["verdict"] == decide(items).verdict


def test_the_summary_prints_every_model_and_the_interval():
    summary = decide(measure(gain=0.05)).summary()

    for expected in (
        "promote: better_than_incumbent",
        "base 1.",
        "incumbent 1.",
        "candidate 1.",
        "99% interval -0.0",
        "40 units",
    ):
        assert expected in summary
    assert decide([]).summary() == "hold: no_held_out_files"


def test_languages_are_reported_apart():
    gate = decide(measure(gain=0.05))

    assert gate.by_language.keys() == {"go", "python"}
    assert all(bits["candidate"] < bits["incumbent"] < bits["base"] for bits in gate.by_language.values())


@pytest.mark.parametrize(
    ("limit", "reference", "verdict", "reason"),
    [
        (0.01, "incumbent", "hold", "old_code_regressed"),
        (0.03, "incumbent", "promote", "better_than_incumbent"),
        (0.01, "base", "promote", "better_than_base"),  # nothing is in service that could get worse
    ],
)
def test_gains_on_new_code_are_not_paid_with_earlier_code(limit, reference, verdict, reason):
    earlier = measure(gain=-0.03, noise=0, units=20)
    new = [one.model_copy(update={"unit": f"new_{one.unit}"}) for one in measure(gain=0.5)]
    items = earlier + new if reference == "incumbent" else without(earlier + new, "incumbent")
    old_units = {one.unit for one in earlier}

    gate = judge(items, confidence=0.99, rounds=500, seed=1, old_units=old_units, max_regression=limit)

    assert (gate.verdict, gate.reason) == (verdict, reason)
    if reference == "incumbent":
        assert (gate.num_old_units, gate.old_regression) == (20, pytest.approx(0.02, abs=0.002))
        assert "on code of earlier rounds +2." in gate.summary() or "+1.9" in gate.summary()
