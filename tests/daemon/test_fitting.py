"""The planner: what a pass takes, which way to train is the fastest that fits, and which the next smaller one."""

from dataclasses import replace
from itertools import pairwise

import pytest
from pydantic import ValidationError

from daemon.config import DaemonSettings, TrainingSettings, settings_of
from daemon.fitting import Fit, find_fit, find_misfit, find_smaller, find_smallest, find_ways, largest_divisor, make_fit
from daemon.full_memory import FullShape, estimate_full
from daemon.memory import Memory, Pass, estimate_memory, layer_bytes, profile_memory_bytes, usable_bytes
from daemon.profiles import PROFILES
from daemon.shapes import SHAPES, find_shape

GIB = 2**30
SEED = DaemonSettings()  # 14B, rank 256, 4 x 4 sequences of 4,096 tokens


def fit_in(gib: float, settings: DaemonSettings = SEED, size: str = "14B") -> Fit | None:
    return find_fit(SHAPES[size], settings, "cuda", "varlen", round(gib * GIB))


def test_a_layer_of_the_14b_keeps_what_the_count_by_hand_says():
    kept = {name: size / 4096 for name, size in layer_bytes(SHAPES["14B"], SEED, Pass(1, 4096, 0, "varlen")).items()}

    assert kept == {
        "norm inputs": 2 * 5120 * 2 + 2 * 4,
        "inputs of q, k, v and of gate, up": 2 * 5120 * 2,
        "products with A": 7 * 256 * 2,
        "queries, keys, values": (5120 + 2 * 1024) * 2,
        "attention result": 5120 * 2 + 40 * 4,
        "mask": 0,
        "gate, up": 2 * 13_824 * 2,
    }


@pytest.mark.parametrize(
    ("part", "gib"),
    [("weights", 6.35 + 2.90), ("adapters", 4.10), ("gradients", 4.10), ("optimizer", 2.08), ("logits", 0.87 + 0.31)],
)
def test_parts_of_the_14b_agree_with_the_count_by_hand(part, gib):
    memory = estimate_memory(SHAPES["14B"], SEED, "cuda", Pass(4, 4096, 0, "varlen"))

    assert getattr(memory, part) / GIB == pytest.approx(gib, rel=0.01)


def test_the_total_has_of_logits_and_backward_the_larger():
    memory = Memory(1, 2, 3, 4, 5, logits=60, backward=7, overhead=8)

    assert memory.total == 1 + 2 + 3 + 4 + 5 + 60 + 8


@pytest.mark.parametrize(("device", "kernel"), [("cpu", "documents"), ("cuda", "sdpa")])
def test_on_a_cpu_attention_is_counted_without_masks(device, kernel):
    fit = make_fit(SHAPES["14B"], SEED, device, "sdpa", micro_batch=1, checkpointed_layers=0)

    assert fit.memory == estimate_memory(SHAPES["14B"], SEED, device, Pass(1, 4096, 0, kernel))
    assert (layer_bytes(SHAPES["14B"], SEED, Pass(1, 4096, 0, kernel))["mask"] == 0) is (device == "cpu")


@pytest.mark.parametrize("profile", [name for name in PROFILES if profile_memory_bytes(name)])
def test_every_card_has_a_way_that_fits_it_and_keeps_the_step_as_large(profile):
    settings = DaemonSettings(**PROFILES[profile]["daemon"])
    shape, card = find_shape(settings), profile_memory_bytes(profile)
    assert shape is not None
    assert card is not None

    fit = find_fit(shape, settings, "cuda", "varlen", usable_bytes(card, "cuda", settings))

    assert fit is not None
    assert fit.memory.total <= 0.95 * card
    assert fit.micro_batch * fit.accumulation == settings.micro_batch * settings.accumulation


def test_the_14b_trains_with_65536_tokens_a_step_in_27_gib():
    settings = DaemonSettings(**PROFILES["gpu-32gb"]["daemon"])

    fit = find_fit(SHAPES["14B"], settings, "cuda", "varlen", usable_bytes(32 * GIB, "cuda", settings))

    assert fit is not None
    assert (settings.lora_rank, fit.micro_batch * fit.accumulation * settings.sequence_tokens) == (256, 65_536)
    assert fit.memory.total <= 27 * GIB


@pytest.mark.parametrize(("gib", "recomputes"), [(27, True), (40, True), (76, False), (134, False)])
def test_layers_are_recomputed_only_where_memory_asks_for_it(gib, recomputes):
    fit = fit_in(gib)

    assert fit is not None
    assert (fit.checkpointed_layers > 0) is recomputes


def test_one_layer_less_or_a_larger_micro_batch_would_not_fit_or_not_be_faster():
    limit, fit = 40 * GIB, fit_in(40)
    assert fit is not None

    for other in find_ways(SHAPES["14B"], SEED, "cuda", "varlen"):
        assert other.memory.total > limit or other.flops >= fit.flops


def test_a_larger_card_is_never_slower():
    flops = [fit.flops for gib in range(22, 140, 6) if (fit := fit_in(gib)) is not None]

    assert len(flops) > 15
    assert flops == sorted(flops, reverse=True)


@pytest.mark.parametrize(("wanted", "layers"), [("all", {48}), (12, {12}), (99, {48}), ("auto", set(range(48)))])
def test_the_setting_says_how_many_layers(wanted, layers):
    settings = SEED.model_copy(update={"checkpointed_layers": wanted})

    assert {way.checkpointed_layers for way in find_ways(SHAPES["14B"], settings, "cuda", "varlen")} == layers


@pytest.mark.parametrize(("micro_batch", "then", "recomputes"), [(2, 1, False), (1, 1, True)])
def test_after_out_of_memory_the_faster_of_halving_and_recomputing_is_taken(micro_batch, then, recomputes):
    fit = make_fit(SHAPES["14B"], SEED, "cuda", "varlen", micro_batch, checkpointed_layers=0)

    smaller = find_smaller(SHAPES["14B"], SEED, "cuda", "varlen", than=fit)

    assert smaller is not None
    assert smaller.micro_batch == then
    assert (smaller.checkpointed_layers > 0) is recomputes


def test_the_ladder_after_out_of_memory_goes_down_to_its_end():
    fit, steps = fit_in(134), []
    while fit is not None:
        steps.append(fit.memory.activations)
        fit = find_smaller(SHAPES["14B"], SEED, "cuda", "varlen", than=fit)

    assert len(steps) > 3
    assert all(after <= 0.75 * before for before, after in pairwise(steps))


@pytest.mark.parametrize(
    ("per_step", "most", "expected"), [(16, 2, 2), (10, 2, 2), (6, 3, 3), (6, 1, 1), (5, 2, 1), (6, 4, 3)]
)
def test_a_smaller_micro_batch_leaves_the_step_as_large(per_step, most, expected):
    assert largest_divisor(per_step, most) == expected


@pytest.mark.parametrize(
    ("step", "devices", "passes"),
    [
        ((4, 4), 1, [(4, 4), (2, 8), (1, 16)]),
        ((4, 4), 2, [(4, 2), (2, 4), (1, 8)]),
        ((4, 4), 8, [(2, 1), (1, 2)]),
        ((4, 4), 16, [(1, 1)]),
        ((4, 3), 2, [(3, 2), (1, 6)]),
        ((1, 4), 2, [(1, 2)]),
    ],
)
def test_devices_share_the_sequences_of_a_step(step, devices, passes):
    settings = DaemonSettings(micro_batch=step[0], accumulation=step[1], num_devices=devices, checkpointed_layers=0)

    ways = find_ways(SHAPES["14B"], settings, "cuda", "varlen")

    assert [(way.micro_batch, way.accumulation) for way in ways] == passes


def test_devices_that_cannot_share_a_step_are_refused_with_its_numbers():
    with pytest.raises(ValidationError, match=r"num_devices \(3\).* micro_batch \(4\) times accumulation \(4\) = 16"):
        TrainingSettings(num_devices=3)


@pytest.mark.parametrize(("devices", "copies"), [(1, 0), (2, 1), (8, 1)])
def test_several_devices_add_up_their_gradients_in_a_second_copy_of_them(devices, copies):
    settings = SEED.model_copy(update={"num_devices": devices})

    memory = estimate_memory(SHAPES["14B"], settings, "cuda", Pass(1, 4096, 0, "varlen"))

    assert memory.buckets == copies * memory.gradients
    one = replace(memory, buckets=0)
    assert memory.total == one.total + memory.buckets
    full = estimate_full(FullShape.of_settings(settings, "qwen2"), settings, "cuda", Pass(1, 4096, 0, "varlen"))
    assert full.buckets == copies * full.gradients


@pytest.mark.parametrize(
    ("device", "num_devices", "gib", "share"),
    [
        ("cuda", 1, None, 0.95),
        ("cpu", 1, None, 0.8),
        ("cuda", 1, 27.0, 27 / 32),
        ("cuda", 2, None, 0.95),
        ("cpu", 2, None, 0.4),
    ],
)
def test_a_run_plans_with_what_it_is_given(device, num_devices, gib, share):
    settings = SEED.model_copy(update={"memory_gib": gib, "num_devices": num_devices})

    assert usable_bytes(32 * GIB, device, settings) == pytest.approx(share * 32 * GIB)


@pytest.mark.parametrize(("before", "now"), [(True, "all"), (False, 0)])
def test_a_run_of_an_older_version_goes_on_as_it_was(before, now):
    assert settings_of({"recompute": before}).checkpointed_layers == now


def test_only_what_exceeds_all_memory_of_the_device_is_a_misfit_and_it_says_what_to_set():
    settings = SEED.model_copy(update={"checkpointed_layers": 0, "memory_gib": 1})
    least = find_smallest(SHAPES["14B"], settings, "cuda", "varlen").memory.total

    assert find_misfit(SHAPES["14B"], settings, "cuda", least) == ""
    words = find_misfit(SHAPES["14B"], settings.model_copy(update={"memory_gib": None}), "cuda", least - 1)
    assert "CODELUPE_CHECKPOINTED_LAYERS=auto" in words
    assert f"needs {least / GIB:.1f} GiB" in words


@pytest.mark.parametrize(("profile", "gib"), [("tiny", 2), ("small", 8)])
def test_a_small_machine_without_a_gpu_is_no_misfit(profile, gib):
    settings = DaemonSettings(**PROFILES[profile]["daemon"])

    assert find_misfit(find_shape(settings), settings, "cpu", gib * GIB) == ""


@pytest.mark.parametrize("content", ['{"num_attention_heads": 2}', '{"hidden_size', "[]"])
def test_a_base_whose_config_tells_no_size_has_no_shape(tmp_path, content):
    (tmp_path / "config.json").write_text(content)

    assert find_shape(DaemonSettings(base_model=str(tmp_path))) is None
