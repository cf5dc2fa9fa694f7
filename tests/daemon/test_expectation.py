import pytest

from daemon.config import DaemonSettings
from daemon.device import Device
from daemon.expectation import Expectation
from daemon.speed import Speed

STEP = {"event": "step", "tokens_per_s": 1000.0}
CARD = Device("cuda", "NVIDIA GeForce RTX 5090", 32 << 30, "device:x")
CPU = Device("cpu", "CPU", 1 << 30, "device:x:cpu")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([(0, 10)], None),  # one count tells no pace
        ([(0, 10), (60, 10)], None),  # nothing comes
        ([(0, 10), (100, 60)], 80.0),  # half a row a second, 40 rows to go
        ([(0, 10), (100, 100)], 0.0),
        ([(0, 90), (10, 0), (20, 50)], 10.0),  # a run claimed the rows: the pace is measured from then on
        ([(0, 0), (5000, 10), (5010, 20)], 80.0),  # counts older than an hour tell nothing of the pace
    ],
)
def test_the_threshold_of_a_hundred_rows_is_expected_at_the_pace_of_the_last_hour(counts, expected):
    expectation = Expectation()
    told = [expectation.expect(now_s, num, 100) for now_s, num in counts]
    assert told[-1] == expected


def test_a_step_on_a_known_card_tells_its_share_of_the_card_s_peak():
    told = Speed.of(DaemonSettings(base_model="Qwen/Qwen2.5-Coder-7B-Instruct"), CARD).add_to(STEP, "adapter")
    # 4 operations per weight of the frozen base, 6 per weight of the adapter, and a little attention.
    assert 28e12 < told["flops"] < 36e12
    assert told["mfu"] == pytest.approx(told["flops"] / 209.5e12)


def test_the_peak_is_that_of_all_cards_that_train_together():
    one, four = (
        Speed.of(DaemonSettings(base_model="Qwen/Qwen2.5-Coder-7B-Instruct", num_devices=num), CARD) for num in (1, 4)
    )
    assert 4 * four.add_to(STEP, "adapter")["mfu"] == pytest.approx(one.add_to(STEP, "adapter")["mfu"])


def test_on_a_device_without_a_known_peak_there_is_no_share_and_on_an_unknown_model_nothing_at_all():
    known = Speed.of(DaemonSettings(base_model="local:tiny"), CPU).add_to(STEP, "base")
    assert known["flops"] > 0
    assert "mfu" not in known
    assert Speed.of(DaemonSettings(base_model="some/other"), CARD).add_to(STEP, "adapter") == STEP
