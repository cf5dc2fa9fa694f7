"""The forecast: figures that agree with what is built, and runs that cannot work named with what to set."""

import inspect
import json
import math
import typing
from dataclasses import replace

import pytest
from rich.console import Console

from daemon.config import DaemonSettings
from daemon.memory import profile_memory_bytes, usable_bytes
from daemon.plan import PlanFacts, count_evaluations, plan
from daemon.plan_table import render
from daemon.profiles import PROFILES
from daemon.samples import build_samples, chars_per_token, density, pack
from daemon.shapes import SHAPES, Shape, find_shape
from tests.daemon.code_items import PYTHON, code_tokenizer, make_item

GIB = 2**30
SEED_SETTINGS = DaemonSettings(micro_batch=1, accumulation=16)


def facts_for(settings: DaemonSettings, memory_gib: float = 32, device: str = "cuda", **changes) -> PlanFacts:
    """A line with a threshold of rows of 6,000 characters pending, and enough held out."""
    return replace(
        PlanFacts(
            num_rows=settings.threshold_rows,
            num_chars=settings.threshold_rows * 6000,
            test_units=20,
            test_chars=150_000,
            validation_units=20,
            shape=find_shape(settings),
            device=device,
            memory_bytes=round(memory_gib * GIB),
        ),
        **changes,
    )


@pytest.mark.parametrize(
    ("size", "linear", "total", "lora_256"),
    [("7B", 6.53e9, 7.62e9, 0.646e9), ("14B", 13.21e9, 14.77e9, 1.101e9), ("32B", 31.21e9, 32.76e9, 2.147e9)],
)
def test_the_shapes_have_the_published_numbers_of_parameters(size, linear, total, lora_256):
    shape = SHAPES[size]

    assert shape.num_linear == pytest.approx(linear, rel=0.005)
    assert shape.num_linear + shape.num_embedding == pytest.approx(total, rel=0.005)
    assert shape.num_lora(256) == pytest.approx(lora_256, rel=0.005)


@pytest.mark.parametrize(
    ("size", "kept", "recomputed"), [("7B", 34.6e9, 49.8e9), ("14B", 68.6e9, 99.2e9), ("32B", 148.9e9, 218.3e9)]
)
def test_operations_per_token_agree_with_the_count_by_hand(size, kept, recomputed):
    assert SHAPES[size].lora_flops(256, 4096) == pytest.approx(kept, rel=0.01)
    assert SHAPES[size].lora_flops(256, 4096, recomputed=1) == pytest.approx(recomputed, rel=0.01)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_fits_its_card_and_can_evaluate(profile):
    settings = DaemonSettings(**PROFILES[profile]["daemon"])
    card = profile_memory_bytes(profile)
    facts = facts_for(settings, (card or 8 * GIB) / GIB, "cuda" if card else "cpu")

    forecast = plan(facts, settings)

    assert forecast.problems == []
    assert forecast.fits
    assert forecast.evaluations > 8
    assert 0 < forecast.peak_bytes <= usable_bytes(facts.memory_bytes, facts.device, settings)


@pytest.mark.parametrize(
    ("steps", "interval", "evaluations"),
    [(1, 100, 2), (7, 100, 8), (8, 100, 9), (13, 100, 14), (59, 100, 10), (800, 100, 9), (6250, 100, 64), (100, 5, 21)],
)
def test_evaluations_are_those_that_will_happen(steps, interval, evaluations):
    interval_used = max(1, min(interval, steps // 8))
    happening = len({step for step in range(steps + 1) if step % interval_used == 0 or step == steps})

    assert count_evaluations(steps, interval) == happening == evaluations


@pytest.mark.parametrize(("sequence_tokens", "max_chars"), [(256, 2000), (1024, 8000), (4096, 8000)])
def test_the_forecast_agrees_with_what_the_builders_make(sequence_tokens, max_chars):
    texts = [PYTHON, inspect.getsource(typing), *(PYTHON[start : start + 3000] for start in range(0, 30_000, 3000))]
    settings = DaemonSettings(
        base_model="local:tiny",
        sequence_tokens=sequence_tokens,
        max_chars=max_chars,
        threshold_rows=1,
        micro_batch=1,
        accumulation=1,
    )
    facts = facts_for(
        settings,
        num_rows=len(texts),
        num_chars=sum(map(len, texts)),
        chars_per_token=chars_per_token(code_tokenizer(), texts),
    )
    samples = [one for text in texts for one in build_samples(make_item(text), code_tokenizer(), settings, seed=1)]
    lengths = [len(sample.input_ids) for sample in samples]
    bins = pack(lengths, sequence_tokens)

    forecast = plan(facts, settings)

    assert forecast.tokens == pytest.approx(sum(lengths), rel=0.12)
    assert forecast.steps == pytest.approx(len(bins), rel=0.15, abs=2)
    assert density(lengths, len(bins), sequence_tokens) > 0.85


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpointed_layers": 0}, "CODELUPE_CHECKPOINTED_LAYERS=auto"),
        ({"lora_rank": 1024, "lora_alpha": 2048}, "CODELUPE_LORA_RANK=64"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_with_the_setting_that_would(changes, words):
    settings = SEED_SETTINGS.model_copy(update=changes)

    forecast = plan(facts_for(settings, 31), settings)

    assert not forecast.fits
    assert "GiB" in forecast.problems[0]
    assert words in forecast.problems[0]


def test_the_setting_that_is_proposed_fits():
    settings = SEED_SETTINGS.model_copy(update={"lora_rank": 1024, "checkpointed_layers": 0})
    proposed = settings.model_copy(update={"lora_rank": 64, "checkpointed_layers": "auto"})

    assert "CODELUPE_CHECKPOINTED_LAYERS=auto CODELUPE_LORA_RANK=64" in plan(facts_for(settings), settings).problems[0]
    assert plan(facts_for(proposed), proposed).fits


def test_a_base_that_fits_in_no_way_asks_for_a_smaller_one():
    settings = SEED_SETTINGS.model_copy(update={"base_model": "Qwen/Qwen2.5-Coder-32B-Instruct"})

    assert "smaller CODELUPE_BASE_MODEL" in plan(facts_for(settings, 16), settings).problems[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_rows": 20, "num_chars": 120_000}, []),
        ({"test_units": 0}, ["0 held-out test units", "CODELUPE_TRAIN_SHARE"]),
        ({"test_units": 7}, ["7 held-out test units"]),
        ({"validation_units": 0}, ["no validation units", "CODELUPE_VALIDATION_SHARE"]),
        ({"disk_free_bytes": GIB}, ["1.0 are free", "CODELUPE_HOME"]),
        ({"shape": None}, ["is not known", "CODELUPE_BASE_MODEL"]),
    ],
)
def test_a_run_that_cannot_work_is_named_with_the_value_and_what_to_set(changes, words):
    problems = plan(facts_for(SEED_SETTINGS, **changes), SEED_SETTINGS).problems

    assert [all(word in problem for word in words) for problem in problems] == [True] * bool(words)


def test_a_run_too_short_for_eight_evaluations_says_how_many_rows_it_takes():
    settings = SEED_SETTINGS.model_copy(update={"threshold_rows": 100})

    short = plan(facts_for(settings), settings)
    enough = settings.model_copy(update={"threshold_rows": 300})

    assert (short.steps, short.evaluations) == (3, 4)
    assert "CODELUPE_THRESHOLD_ROWS" in short.problems[0]
    assert plan(facts_for(enough), enough).problems == []


def test_fewer_rows_than_the_threshold_are_forecast_for_the_threshold():
    forecast = plan(facts_for(SEED_SETTINGS, num_rows=10, num_chars=60_000), SEED_SETTINGS)

    assert forecast.rows == SEED_SETTINGS.threshold_rows
    assert any("10 rows are pending" in text for text in forecast.assumptions)


@pytest.mark.parametrize(
    ("changes", "rows"), [({}, 5000), ({"max_rows": 2000}, 2000), ({"max_run_chars": 12_000_000}, 2000)]
)
def test_a_run_takes_no_more_than_the_settings_allow(changes, rows):
    settings = SEED_SETTINGS.model_copy(update=changes)

    assert plan(facts_for(settings, num_rows=5000, num_chars=30_000_000), settings).rows == rows


def test_replay_and_epochs_add_tokens():
    first = plan(facts_for(SEED_SETTINGS), SEED_SETTINGS)
    later = plan(facts_for(SEED_SETTINGS, has_incumbent=True), SEED_SETTINGS)
    twice = SEED_SETTINGS.model_copy(update={"epochs": 2})

    assert later.tokens == pytest.approx(first.tokens * 1.15, rel=0.01)
    assert plan(facts_for(twice), twice).tokens == pytest.approx(first.tokens * 2, abs=1)
    # The epochs follow one another: 25.4 steps, twice, and only the last of all is short.
    assert (first.steps, plan(facts_for(twice), twice).steps) == (26, 51)


def test_a_measured_rate_gives_the_hours():
    forecast = plan(facts_for(SEED_SETTINGS, tokens_per_s=1000.0), SEED_SETTINGS)

    assert forecast.seconds["train"] == pytest.approx(1.05 * forecast.tokens / 1000)
    assert forecast.hours == pytest.approx(sum(forecast.seconds.values()) / 3600)
    assert not any("tokens/s" in text for text in forecast.assumptions)


def test_devices_share_the_passes_of_a_step_and_the_table_says_so():
    settings = DaemonSettings(num_devices=2)
    one, two = plan(facts_for(DaemonSettings(), 80), DaemonSettings()), plan(facts_for(settings, 80), settings)

    assert (two.num_devices, two.steps) == (2, one.steps)
    assert two.micro_batch * two.accumulation * 2 == one.micro_batch * one.accumulation == 16
    assert two.seconds["train"] < one.seconds["train"]
    console = Console(width=160)
    with console.capture() as capture:
        console.print(render(two))
    passes = f"{two.accumulation} of {two.micro_batch} sequences a step on each of 2 devices"
    for expected in (passes, "buckets"):
        assert expected in capture.get()


def test_what_was_not_measured_is_said():
    assumptions = plan(facts_for(SEED_SETTINGS), SEED_SETTINGS).assumptions

    assert [any(word in text for text in assumptions) for word in ("characters per token", "tokens/s")] == [True, True]


def test_the_base_of_a_new_line_takes_its_share_first():
    settings = DaemonSettings(**PROFILES["tiny"]["daemon"])
    pending = {"num_rows": 800, "num_chars": 4_000_000, "device": "cpu"}

    forecast = plan(facts_for(settings, needs_base=True, **pending), settings)

    left = 4_000_000 - min(settings.base_share * 4_000_000, settings.base_max_chars)
    assert forecast.chars == pytest.approx(min(left, settings.max_run_chars))
    assert forecast.seconds["base"] > 0
    assert plan(facts_for(settings, **pending), settings).seconds["base"] == 0


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("Qwen/Qwen2.5-Coder-14B-Instruct", SHAPES["14B"]),
        ("Qwen/Qwen2.5-Coder-0.5B", SHAPES["0.5B"]),
        ("Qwen/Qwen2.5-1.5B-Instruct", SHAPES["1.5B"]),
        ("somebody/Model-7B", None),
        ("Qwen/Qwen3-14B", None),
    ],
)
def test_the_shape_is_found_by_name(name, shape):
    assert find_shape(DaemonSettings(base_model=name)) == shape


def test_the_shape_of_a_folder_is_read_from_its_config(tmp_path):
    config = {"num_hidden_layers": 3, "hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
    config |= {"intermediate_size": 384, "vocab_size": 1024, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert find_shape(DaemonSettings(base_model=str(tmp_path))) == Shape(3, 128, 2, 1, 64, 384, 1024, tied=True)


def test_the_report_is_strict_json_with_every_promised_figure():
    written = json.loads(json.dumps(plan(facts_for(SEED_SETTINGS), SEED_SETTINGS).to_json(), allow_nan=False))

    promised = {"rows", "tokens", "steps", "evaluations", "peak_bytes", "disk_bytes", "hours", "memory", "problems"}
    assert promised <= written.keys()
    assert all(math.isfinite(written[name]) for name in ("rows", "tokens", "hours"))


def test_the_table_shows_the_figures_and_the_problems():
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(render(plan(facts_for(SEED_SETTINGS, test_units=0), SEED_SETTINGS)))

    for expected in ("rows", "1,000", "evaluations", "GiB", "optimizer", "of 48 layers", "0 held-out test units"):
        assert expected in capture.get()


@pytest.mark.parametrize(("profile", "gib"), [("gpu-16gb", 16), ("gpu-141gb", 141), ("tiny", None), ("small", None)])
def test_a_profile_names_its_card(profile, gib):
    assert profile_memory_bytes(profile) == (None if gib is None else gib * GIB)
