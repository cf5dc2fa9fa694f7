import importlib.util
import json
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from monitoring import gpu, metrics
from monitoring.sensors import measure_machine
from tests.waiting import wait_for

FAKE = Path(__file__).parents[1] / "nvml/pynvml.py"
CARD = {"gpu": "0"}


def value(name, **labels):
    return metrics.REGISTRY.get_sample_value(f"codelupe_{name}", labels)


@pytest.fixture
def card(tmp_path, monkeypatch):
    """Put the stand-in in NVML's place; yield what sets the card's state."""
    spec = importlib.util.spec_from_file_location("fake_nvml", FAKE)
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    monkeypatch.setattr(gpu, "pynvml", fake)
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "card.json"))
    yield lambda **state: (tmp_path / "card.json").write_text(json.dumps(state))
    for family in (metrics.GPU_UP, metrics.GPU_INFO, metrics.GPU_CLOCK, *gpu._FIGURES):
        family.clear()


def test_a_card_tells_memory_temperature_power_clocks_and_how_busy_it_is(card):
    gpus = gpu.Gpus()
    gpus.measure()
    gpus.close()
    assert value("gpu_memory_used_bytes", **CARD) == 27 * 2**30
    assert value("gpu_temperature_celsius", **CARD) == 61
    assert value("gpu_temperature_limit_celsius", **CARD) == 90
    assert value("gpu_power_watts", **CARD) == 310
    assert value("gpu_utilization_ratio", **CARD) == 0.97
    assert value("gpu_clock_hertz", **CARD, clock="sm") == 2.4e9


def test_the_cards_are_listed_with_what_each_told_last(card):
    card(watts=None)
    gpu.Gpus().measure()
    (shown,) = gpu.show_gpus()
    assert (shown["gpu"], shown["name"], shown["up"]) == ("0", "NVIDIA GeForce RTX 5090", 1)
    assert (shown["memory_used_bytes"], shown["temperature_celsius"]) == (27 * 2**30, 61)
    assert "power_watts" not in shown


def test_what_a_card_tells_can_be_read_by_name_for_a_tracker(card):
    card(watts=None)
    told = gpu.Gpus().read()
    assert (told["gpu0/temperature_celsius"], told["gpu0/utilization_ratio"]) == (61, 0.97)
    assert "gpu0/power_watts" not in told


def test_a_figure_that_a_card_does_not_tell_is_absent_and_the_others_are_there(card):
    card(watts=None)
    gpu.Gpus().measure()
    assert value("gpu_power_watts", **CARD) is None
    assert value("gpu_temperature_celsius", **CARD) == 61


def test_a_lost_card_is_down_and_its_last_figures_vanish_until_it_is_back(card):
    gpus = gpu.Gpus()
    gpus.measure()
    card(lost=True)
    gpus.measure()
    assert (value("gpu_up", **CARD), value("gpu_temperature_celsius", **CARD)) == (0, None)
    card(lost=False)
    gpus.measure()
    assert (value("gpu_up", **CARD), value("gpu_temperature_celsius", **CARD)) == (1, 61)


@pytest.mark.parametrize("state", [{"missing": True}, {"cards": 0}], ids=["no driver", "no card in sight"])
def test_without_a_gpu_there_are_no_figures_and_no_error(card, state):
    card(**state)
    gpus = gpu.Gpus()
    gpus.measure()
    gpus.close()
    assert "codelupe_gpu_up{" not in generate_latest(metrics.REGISTRY).decode()


def test_a_card_tells_who_computes_on_it(card):
    card(processes=[7, 9])
    assert gpu.fetch_processes("GPU-1") == {7, 9}


def test_a_card_that_does_not_tell_who_computes_on_it_is_told_of_once(card, caplog):
    card(lost=True)
    gpu._warn_of_silence.cache_clear()
    assert [gpu.fetch_processes("GPU-1"), gpu.fetch_processes("GPU-1")] == [set(), set()]
    assert [record.event for record in caplog.records] == ["gpu_processes_unknown"]


def test_processors_memory_and_the_disk_of_the_home_are_measured_while_the_service_runs(tmp_path):
    with measure_machine(tmp_path, every_s=0.01):
        wait_for(lambda: value("machine_cpu_busy_ratio") is not None and value("disk_free_bytes") is not None)
    assert 0 <= value("machine_cpu_busy_ratio") <= 1
    assert 0 < value("machine_memory_available_bytes") <= value("machine_memory_bytes")
    assert 0 < value("disk_free_bytes") <= value("disk_bytes")


def test_a_sensor_that_cannot_be_read_is_counted_once_and_keeps_the_others_alive(tmp_path):
    metrics.MACHINE_MEMORY_BYTES.set(metrics.UNKNOWN)
    before = value("loop_errors_total", loop="sensors")
    with measure_machine(tmp_path / "gone", every_s=0.01):
        wait_for(lambda: value("loop_errors_total", loop="sensors") == before + 1)
        metrics.MACHINE_MEMORY_BYTES.set(metrics.UNKNOWN)
        wait_for(lambda: value("machine_memory_bytes") is not None)
    assert value("loop_errors_total", loop="sensors") == before + 1
