"""Turns: contestants live side by side, each in a process of its own, and train in turns, a few steps each.

The processes are forked from a server that has imported what all need and nothing else, so that each has its own peak
of memory and none pays for the imports. A child announces the end of its warm-up, and trains on when it is told to;
after every turn it says {"tokens", "steps", "seconds", "cpu_s"}, at its end {"peak_rss_mb"} and what else it has noted.
Only one child computes at any time, and one that waits keeps no memory that it has freed: four at their peak are
more than a small machine has.
"""

import ctypes
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any, Self

_PRELOADED = ["tests.bench.contest.ours", "tests.bench.contest.stock"]
_PROCESSES = multiprocessing.get_context("forkserver")


class Turns:
    """The child's side: told of every optimizer step, it waits where its turn ends."""

    def __init__(self, pipe: Connection, warmup_steps: int, rounds: int) -> None:
        self._pipe, self._warmup_steps, self._rounds = pipe, warmup_steps, rounds
        self._steps = self._tokens = 0
        self.noted: dict[str, float] = {"turns_s": 0.0}
        """Told at the end; `turns_s` is the time of waiting for turns."""
        self._begin()

    def _begin(self) -> None:
        self._started, self._cpu_s = time.perf_counter(), time.process_time()

    def step(self, number: int, total: int, num_tokens: int) -> None:
        """Take note of a finished step, counted from 1; what is left over of the rounds belongs to the last one."""
        self._steps += 1
        self._tokens += num_tokens
        per_round = max(1, (total - self._warmup_steps) // self._rounds)
        num_done = number - self._warmup_steps
        is_border = num_done % per_round == 0 and 0 <= num_done < per_round * self._rounds
        if number == total or is_border:
            self._end_turn(waits=number < total)

    def _end_turn(self, *, waits: bool) -> None:
        seconds, cpu_s = time.perf_counter() - self._started, time.process_time() - self._cpu_s
        self._pipe.send(
            {"tokens": self._tokens, "steps": self._steps, "seconds": round(seconds, 4), "cpu_s": round(cpu_s, 4)}
        )
        paused = time.perf_counter()
        if waits:
            ctypes.CDLL(None).malloc_trim(0)
            self._pipe.recv()  # raises EOFError where the bench has gone away
        self.noted["turns_s"] += time.perf_counter() - paused
        self._steps = self._tokens = 0
        self._begin()

    def finish(self) -> None:
        """Say what memory it took, and what else was noted."""
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        self._pipe.send({"peak_rss_mb": round(peak / 1024, 1), **self.noted})


@dataclass
class Contestant:
    """The parent's side of one child, and what it has said of its turns."""

    name: str
    log: Path
    process: BaseProcess
    pipe: Connection
    turns: list[dict[str, float]] = field(default_factory=list)
    last: dict[str, float] = field(default_factory=dict)
    """What the child said at its end: `peak_rss_mb`, and what it has noted."""

    @classmethod
    def start(cls, name: str, train: Callable[..., None], *args: Any, log: Path) -> Self:
        """Start a child that calls `train(pipe, *args)`; what it prints goes to the log."""
        ours, theirs = _PROCESSES.Pipe()
        process = _PROCESSES.Process(target=_run, args=(train, theirs, log, args), name=name, daemon=True)
        process.start()
        theirs.close()
        return cls(name, log, process, ours)

    def train_turn(self) -> None:
        """Tell the child to go on and wait for the end of its turn."""
        self.pipe.send("go")
        self.turns.append(self.hear())

    def hear(self) -> dict[str, float]:
        """Return the child's next message; raises RuntimeError with the end of its log where it died."""
        try:
            message: dict[str, float] = self.pipe.recv()
        except EOFError as error:
            raise RuntimeError(f"{self.name} died:\n{self.log.read_text()[-3000:]}") from error
        return message

    def finish(self) -> None:
        """Let the child save its adapter and leave."""
        self.last = self.hear()
        self.process.join()

    def close(self) -> None:
        """Leave no process behind."""
        self.pipe.close()
        if not self.last:
            self.process.kill()
        self.process.join()
        self.process.close()

    @property
    def tokens_per_s(self) -> float:
        """Real tokens per second of the median turn."""
        return median(turn["tokens"] / turn["seconds"] for turn in self.turns)


def _run(train: Callable[..., None], pipe: Connection, log: Path, args: Sequence[Any]) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    train(pipe, *args)


def prepare_processes(threads: int, preloaded: Sequence[str] = _PRELOADED) -> None:
    """Say what the server of the children imports, and in which environment they live; before the first is started."""
    os.environ |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    _PROCESSES.set_forkserver_preload([*preloaded])


def alternate(started: Iterable[Contestant], rounds: int, tell: Callable[[str], None]) -> list[Contestant]:
    """Start all, then let them train to the end in turns: forward, backward, forward (A/B/A); return them, finished."""
    contestants: list[Contestant] = []
    try:
        for contestant in started:
            contestants.append(contestant)
            tell(f"{contestant.name} loads")
            contestant.hear()  # the warm-up is over
        for number in range(rounds):
            for contestant in contestants if number % 2 == 0 else reversed(contestants):
                tell(f"round {number + 1} of {rounds}: {contestant.name}")
                contestant.train_turn()
        for contestant in contestants:
            contestant.finish()
    finally:
        for contestant in contestants:
            contestant.close()
    return contestants
