"""Ours: the training child's own `train`, on a job directory as the daemon would hand it over."""

from pathlib import Path

from daemon.job import Event
from daemon.training.child import Child
from daemon.training.train import train
from tests.bench.contest.overheads import WHOLE, watch_trainer
from tests.bench.contest.stage import read_job
from tests.bench.contest.turns import Turns


def train_ours(name: str, stage: Path, turns: Turns) -> None:
    """Train; the events of the steps tell the turns."""
    told = 0
    if name == WHOLE:
        watch_trainer(turns)

    def follow(event: Event) -> None:
        nonlocal told
        if event["event"] == "step":
            tokens, told = event["tokens"] - told, event["tokens"]
            turns.step(event["step"], event["total"], tokens)

    train(read_job(stage, name), stage / name, Child(follow))
