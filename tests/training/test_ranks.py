"""Two processes that train together: the same losses and adapter as one, one reason when one dies, nobody left."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from daemon.job import Failure, Job, Result
from daemon.training.data import collate
from daemon.training.launch import find_origin
from daemon.training.rows import fill_up, pack_rows
from daemon.training.train import train
from tests.training.test_child import events_of, started
from tests.training.test_rows import SAMPLES
from tests.waiting import wait_for

MakeJob = Callable[..., tuple[Job, Path]]
# Steps of four rows: two for each of two processes, one by one. The last step has too few for both.
STEPS: dict[str, Any] = {"micro_batch": 1, "accumulation": 4, "checkpoint_interval_s": 1e-9, "eval_share": 0.5}
NUM_ITEMS = 20
LOST = "RuntimeError: [gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:1176: Connection reset by peer"
AGREE = """
import sys
from pathlib import Path
from daemon.training.ranks import least, parting, rank
with parting():
    Path(sys.argv[1], str(rank())).write_text(str(least((7, 5)[rank()], "cpu")))
"""
# Python runs it at its start, in each process: the second one's memory does not suffice for its second pass, once.
SCARCE = """
import os
from pathlib import Path
if os.environ.get("RANK") == "1" and not Path({job_dir!r}, "smaller.json").exists():
    from daemon.training import loss
    real, seen = loss.sum_losses, []
    def scarce(*tensors):
        seen.append(1)
        if len(seen) == 2:
            raise MemoryError("no room")
        return real(*tensors)
    loss.sum_losses = scarce
"""


def processes_of(job_dir: Path) -> list[int]:
    """Return the pids of all that has the job in its command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(job_dir).encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return sorted(found)


def figures_of(events: list[dict[str, Any]]) -> dict[int, tuple[float, ...]]:
    names = ("loss", "grad_norm", "lr", "tokens")
    return {event["step"]: tuple(event[name] for name in names) for event in events if event["event"] == "step"}


def test_two_processes_learn_what_one_does_and_a_stop_reaches_both(make_job: MakeJob, recorder: Any) -> None:
    job, one_dir = make_job(NUM_ITEMS, **STEPS)
    one = recorder()
    train(job, one_dir, one)
    _, two_dir = make_job(NUM_ITEMS, num_devices=2, **STEPS)
    told = []
    with started("train", two_dir) as child:
        for event in events_of(child):
            told.append(event)
            if event["event"] == "step" and event["step"] == 2:
                child.stdin.write(b'{"command": "stop"}\n')
                child.stdin.flush()
        assert child.wait() == 3, (two_dir / "child.log").read_text()[-3000:]
    with started("train", two_dir) as child:
        later = list(events_of(child))
        assert child.wait() == 0, (two_dir / "child.log").read_text()[-3000:]
    assert any(event.get("note") == "resumed" for event in later)
    plans = [(event["micro_batch"], event["accumulation"]) for event in (*told, *later) if event["event"] == "plan"]
    assert plans == [(1, 2)] * 2  # of each process, twice: after the stop as before it
    expected, found = figures_of(one.events), figures_of([*told, *later])
    assert sorted(found) == sorted(expected)
    for step, figures in expected.items():
        assert found[step] == pytest.approx(figures, rel=1e-5), f"step {step}"
    losses = [[event["loss"] for event in events if event["event"] == "eval"] for events in (one.events, told + later)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    weights = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one_dir, two_dir)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4)
    assert processes_of(two_dir) == []


def test_where_the_memory_of_one_runs_out_all_go_on_in_a_smaller_way(
    make_job: MakeJob, recorder: Any, tmp_path: Path
) -> None:
    steps = STEPS | {"micro_batch": 2, "accumulation": 2}
    job, one_dir = make_job(NUM_ITEMS, **steps)
    one = recorder()
    train(job, one_dir, one)
    _, two_dir = make_job(NUM_ITEMS, num_devices=2, **steps)
    (tmp_path / "sitecustomize.py").write_text(SCARCE.format(job_dir=str(two_dir)))
    with started("train", two_dir, PYTHONPATH=str(tmp_path)) as child:
        told = list(events_of(child))
        assert child.wait() == 0, (two_dir / "child.log").read_text()[-3000:]
    plans = [(event["micro_batch"], event["accumulation"]) for event in told if event["event"] == "plan"]
    assert plans == [(2, 1), (1, 2)]  # of each process
    assert [event.get("note") for event in told].count("out_of_memory") == 1
    expected, found = figures_of(one.events), figures_of(told)
    assert sorted(found) == sorted(expected)
    for step, figures in expected.items():
        assert found[step] == pytest.approx(figures, rel=1e-5), f"step {step}"
    result = Result.model_validate_json((two_dir / "result.json").read_text())
    assert (result.num_out_of_memory, result.micro_batch) == (1, 1)
    assert processes_of(two_dir) == []


def test_the_death_of_one_process_ends_all_and_is_the_reason(make_job: MakeJob) -> None:
    _, job_dir = make_job(NUM_ITEMS, num_devices=2, epochs=50, **STEPS)
    with started("train", job_dir) as child:
        next(event for event in events_of(child) if event["event"] == "step")
        _, first, second = processes_of(job_dir)
        assert first != second
        os.kill(second, signal.SIGKILL)
        list(events_of(child))
        assert child.wait() == 1
    failure = Failure.model_validate_json((job_dir / "error.json").read_text())
    assert "ended by signal 9" in failure.message
    assert not failure.data_caused
    wait_for(lambda: processes_of(job_dir) == [])


@pytest.mark.parametrize(
    ("messages", "seconds", "origin"),
    [
        ((LOST, None), (5, 5), 1),  # killed: its peer told what it saw in the same second
        ((LOST, "KeyError"), (5, 5), 1),
        (("loss nan", LOST), (5, 5), 0),
        ((LOST, "KeyError"), (5, 6), 1),  # its words took longer to write
        ((LOST, LOST), (6, 5), 1),
        ((None, "KeyError"), (6, 5), 1),
        ((LOST, None), (5, 35), 0),  # torchrun killed the other, which waited
        (("CUDA error: unspecified launch failure", None), (5, 35), 0),
        ((LOST, "CUDA error: unspecified launch failure"), (5, 5), 1),
        (("path \udcff", LOST), (5, 5), 0),
    ],
)
def test_of_several_failures_the_one_that_the_others_came_of_is_the_reason(
    tmp_path: Path, messages: tuple[str | None, ...], seconds: tuple[int, ...], origin: int
) -> None:
    failures = {}
    for rank, (message, second) in enumerate(zip(messages, seconds, strict=True)):
        failures[rank] = ProcessFailure(rank, pid=1, exitcode=-9 if message is None else 1, error_file="")
        failures[rank].timestamp = second
        if message is not None:
            (tmp_path / f"error-{rank}.json").write_text(json.dumps({"message": message}))
    assert find_origin(failures, tmp_path) == (origin, failures[origin])


def test_without_its_parent_no_process_goes_on(make_job: MakeJob) -> None:
    _, job_dir = make_job(NUM_ITEMS, num_devices=2, epochs=50, **STEPS)
    with started("train", job_dir) as child:
        wait_for(lambda: len(processes_of(job_dir)) == 3)
        child.kill()  # the two are in sessions of their own
        child.stdin.close()
        child.wait()
        wait_for(lambda: processes_of(job_dir) == [])


def test_devices_with_unequal_free_memory_plan_for_the_smallest(tmp_path: Path) -> None:
    script = tmp_path / "agree.py"
    script.write_text(AGREE)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launcher, str(script), str(tmp_path)], check=True)
    assert [(tmp_path / rank).read_text() for rank in ("0", "1")] == ["5", "5"]


@pytest.mark.parametrize("flat", [False, True])
def test_empty_rows_teach_nothing(flat: bool) -> None:
    rows = fill_up(pack_rows(SAMPLES, 64), 6)
    assert len(rows) == 6
    full, mixed = collate([rows[0]], flat=flat), collate([rows[0], rows[5]], flat=flat)
    for name in ("targets", "target_index", "sample_index", "num_tokens"):
        assert (torch.as_tensor(mixed[name]) == torch.as_tensor(full[name])).all()
    idle = collate([rows[4], rows[5]], flat=flat)
    assert (len(idle["targets"]), idle["num_tokens"]) == (0, 0)
    assert idle["input_ids"].numel() in (1, 2)
