"""One contestant, in its process."""

from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from tests.bench.contest.shapes import Shape
from tests.bench.contest.turns import Contestant, Turns, alternate


def compete(names: Sequence[str], stage: Path, shape: Shape, tell: Callable[[str], None]) -> list[Contestant]:
    """Let all of these train the stage's samples, in turns; return them, finished."""
    pace = shape.warmup_steps, shape.rounds
    started = (Contestant.start(name, train, name, stage, pace, log=stage / f"{name}.log") for name in names)
    return alternate(started, shape.rounds, tell)


def train(pipe: Connection, name: str, stage: Path, pace: tuple[int, int]) -> None:
    """Train, taking turns; the adapter is left in STAGE/NAME/adapter."""
    turns = Turns(pipe, *pace)
    # Each imports what it is made of, and nothing more: memory is measured too.
    if name.startswith("ours"):
        from tests.bench.contest.ours import train_ours as train_it
    elif name == "trl":
        from tests.bench.contest.sft import train_trl as train_it
    elif name.startswith("stock"):
        from tests.bench.contest.stock import train_stock as train_it
    else:
        from tests.bench.contest.bare import train_bare as train_it
    train_it(name, stage, turns)
    turns.finish()
