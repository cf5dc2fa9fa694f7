"""The input of a step: made while the one before it runs, in its order; and how often a step asks the device."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from daemon.job import VALIDATION, Event, Job
from daemon.training import trainer as trainer_module
from daemon.training.child import Failed
from daemon.training.prefetch import Prefetch
from daemon.training.train import train
from tests.waiting import wait_for

MakeJob = Callable[..., tuple[Job, Path]]
# Operations after which the host knows what the device has computed: it waits for it.
ASKING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal"}


def numbered(num: int, made: list[int], *, broken: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield batches with their number, and note which were made; raise at one of them."""
    for number in range(num):
        if number == broken:
            raise Failed("exception", f"batch {number}", data_caused=True)
        made.append(number)
        yield {"number": number}


def numbers(batches: Sequence[dict[str, Any]]) -> list[int]:
    return [batch["number"] for batch in batches]


def test_the_next_steps_batches_are_made_meanwhile_and_no_more() -> None:
    made: list[int] = []
    batches = numbered(5, made)
    with Prefetch("cpu") as prefetch:
        assert numbers(prefetch.take(batches, 2)) == [0, 1]
        wait_for(lambda: made == [0, 1, 2, 3], "the second step's batches")
        assert numbers(prefetch.take(batches, 2)) == [2, 3]
        assert numbers(prefetch.take(batches, 1)) == [4]
    assert made == [0, 1, 2, 3, 4]


def test_what_making_a_batch_raised_is_raised_by_the_step_that_needs_it() -> None:
    batches = numbered(4, [], broken=2)
    with Prefetch("cpu") as prefetch:
        assert numbers(prefetch.take(batches, 2)) == [0, 1]
        with pytest.raises(Failed, match="batch 2"):
            prefetch.take(batches, 2)


def test_an_item_that_breaks_its_batch_is_named_after_the_steps_before_it(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = trainer_module.collate, []

    def collate(rows: Any, *, flat: bool) -> Any:
        asked.append(rows)
        if len(asked) == 4:
            raise ValueError("odd")
        return real(rows, flat=flat)

    monkeypatch.setattr(trainer_module, "collate", collate)
    job, job_dir = make_job(24, micro_batch=1)
    child = recorder()
    with pytest.raises(Failed) as caught:
        train(job, job_dir, child)
    assert caught.value.failure.data_caused
    assert caught.value.failure.message == f"{', '.join(trainer_module.names_of(asked[3]))}: ValueError: odd"


class Asking(TorchDispatchMode):
    """Counts the operations that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num += function.name() in ASKING
        return function(*args, **(kwargs or {}))


def test_a_step_asks_the_device_for_its_loss_and_its_gradients_norm_alone(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(24, micro_batch=1, accumulation=3, checkpointed_layers=1)
    (job_dir / VALIDATION).write_text("")
    seen: list[int] = []

    def count(event: Event) -> bool:
        if event["event"] == "step":
            seen.append(asking.num)
        return False

    with Asking() as asking:
        train(job, job_dir, recorder(count))
    assert {after - before for before, after in pairwise(seen)} == {2}
