"""Whatever ends the child, and wherever: the next one goes on, and the run ends as if nothing had happened."""

import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.job import Event, Job, Result
from daemon.training.checkpoints import find_checkpoint
from daemon.training.train import train
from tests.training.test_child import events_of, started

MakeJob = Callable[..., tuple[Job, Path]]
# A rate that soon makes it worse: it stops early, long before its planned end. A checkpoint follows every step.
UNSTEADY = {
    "learning_rate": 1.0, "patience": 9, "min_improvement": 0.002, "accumulation": 2, "epochs": 3,
    "eval_interval_steps": 1, "checkpoint_interval_s": 1e-9,
}  # fmt: skip
DONE, ORPHANED, STOPPED, KILLED = 0, 1, 3, -signal.SIGKILL


@dataclass(frozen=True)
class End:
    """How a child ends: what is done to it once it has told of so many steps, or the failpoint it dies at."""

    name: str
    status: int
    strike: Callable[[subprocess.Popen[bytes]], None] | None = None
    after_steps: int = 1
    failpoint: str = ""


def order_stop(child: subprocess.Popen[bytes]) -> None:
    child.stdin.write(b'{"command": "stop"}\n')
    child.stdin.flush()


ENDS = [
    End("SIGTERM", STOPPED, lambda child: child.send_signal(signal.SIGTERM)),
    End("a kill before a checkpoint's rename", KILLED, failpoint="checkpoint.before_rename=kill@2"),
    End("the order to stop", STOPPED, order_stop),
    End("a kill after a checkpoint's rename", KILLED, failpoint="checkpoint.after_rename=kill@2"),
    End("the death of its parent", ORPHANED, lambda child: child.stdin.close()),
    End("SIGKILL", KILLED, lambda child: child.kill(), after_steps=random.randint(1, 3)),
    End("nothing", DONE),
]


def run_child(job_dir: Path, end: End) -> list[Event]:
    """Run a child until it has ended in this way; return its events."""
    told: list[Event] = []
    with started("train", job_dir, failpoints=end.failpoint) as child:
        for event in events_of(child):
            told.append(event)
            if end.strike and event["event"] == "step" and len(steps_of(told)) == end.after_steps:
                end.strike(child)
        assert child.wait() == end.status, f"ended by {end.name}"
    return told


def steps_of(events: list[Event]) -> list[int]:
    return [event["step"] for event in events if event["event"] == "step"]


def figures_of(events: list[Event], kind: str) -> dict[int, Event]:
    """Return the events of one kind by step, without what tells of time or names the child."""
    others = {"tokens_per_s", "eta_s", "data_wait_s", "peak_bytes", "line", "run", "attempt"}
    return {
        event["step"]: {key: value for key, value in event.items() if key not in others}
        for event in events
        if event["event"] == kind
    }


def test_an_often_interrupted_run_ends_as_an_undisturbed_one_to_the_bit(make_job: MakeJob, recorder: Any) -> None:
    job, whole_dir = make_job(40, **UNSTEADY)
    whole = recorder()
    train(job, whole_dir, whole)
    _, cut_dir = make_job(40, **UNSTEADY)
    done = 0
    for end in ENDS:
        told = run_child(cut_dir, end)
        for kind in ("step", "eval"):
            expected = figures_of(whole.events, kind)
            for step, figures in figures_of(told, kind).items():
                assert figures == expected[step], f"the child that was ended by {end.name}, which went on from {done}"
        resumed = [event["message"] for event in told if event.get("note") == "resumed"]
        checkpoint = find_checkpoint(cut_dir / "checkpoints")
        assert resumed == ([f"from checkpoint-{done:08d}"] if done else [])
        assert steps_of(told) == list(range(done + 1, steps_of(told)[-1] + 1))
        assert checkpoint is not None
        assert done <= int(checkpoint.name[-8:]) <= steps_of(told)[-1]
        done = int(checkpoint.name[-8:])
    expected, found = (
        Result.model_validate_json((folder / "result.json").read_text()) for folder in (whole_dir, cut_dir)
    )
    assert expected.stopped_early
    assert expected.steps == done < expected.steps_planned
    timed = {"seconds", "tokens_per_s", "peak_bytes"}
    assert found.model_dump(exclude=timed) == expected.model_dump(exclude=timed)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (cut_dir / "adapter" / name).read_bytes() == (whole_dir / "adapter" / name).read_bytes()
    assert not list(cut_dir.rglob("*.tmp"))
    assert not list(cut_dir.rglob("*.replaced"))
