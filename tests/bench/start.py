"""Measure the time from the threshold to the first optimiser step, phase by phase, on the profile `tiny`.

`python -m tests.bench.start [--json] [--rounds 3]`: a PostgreSQL and a daemon's parts in a temporary home, the standard
library's files as rows, an untrained base of the profile's size. The first round begins without the quantised base on
disk (`cold`), the others with it (`warm`: the median of each part). Seconds; for a quiet machine.
"""

import argparse
import json
import sys
import sysconfig
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import sqlalchemy as sa

from daemon.config import DaemonSettings
from daemon.context import Context
from daemon.device import Device
from daemon.job import Event
from daemon.leadership import Leadership
from daemon.live import Live
from daemon.paths import LinePaths
from daemon.profiles import PROFILES
from daemon.tick import tick
from monitoring.progress import Progress
from schema.database import create_engine, upgrade
from schema.embedded import open_server
from schema.files import save_files
from schema.lines import open_line
from schema.runs import Run
from tests.builders import claim_source, finish, make_file

NUM_FILES, NUM_TOKENIZER_FILES = 320, 60


class Watch(Live):
    """Notes when the child says what, and stops the run after its first step."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(Progress(stream=sys.stderr))
        self.stop, self.marks = stop, dict[str, float]()

    def on_event(self, run: Run, event: Event) -> None:
        """Note the time of each phase, of the evaluation before the first step, and of that step."""
        super().on_event(run, event)
        name = event["phase"] if event["event"] == "phase" else event["event"]
        self.marks.setdefault(name, time.time())
        if event["event"] == "step":
            self.stop.set()


def read_library(num: int) -> list[str]:
    """Return files of the standard library that are neither tiny nor huge."""
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    texts = (path.read_text(errors="ignore") for path in paths if "site-packages" not in path.parts)
    return [text for text in texts if 500 < len(text) < 30_000 and "\0" not in text][:num]


def make_base(folder: Path, settings: DaemonSettings, texts: list[str]) -> None:
    """Make an untrained base of the profile's size, in a process's worth of imports that the child does not share."""
    from daemon.samples import train_tokenizer
    from daemon.training.pretrain import make_model, save_base

    folder.mkdir()
    tokenizer = train_tokenizer(texts, settings.vocabulary)
    save_base(make_model(settings, tokenizer), tokenizer, folder)


def store(engine: sa.Engine, texts: list[str]) -> None:
    """Store the files as rows; every tenth is held out to test, the one before it to validate."""
    splits = {0: "test", 9: "validation"}
    with engine.begin() as conn:
        claim = claim_source(conn)
        files = [
            make_file(f"u{number}/code.py", text, unit=f"u{number}", split=splits.get(number % 10, "train"))
            for number, text in enumerate(texts)
        ]
        save_files(conn, claim, files)
        finish(conn, claim)


def measure(engine: sa.Engine, home: Path, settings: DaemonSettings) -> dict[str, float]:
    """Run one line from its threshold to its first step; return the seconds of each part and of all."""
    stop = threading.Event()
    with engine.begin() as conn:
        open_line(conn, name=settings.line, base_model=settings.base_model)
    leadership = Leadership(engine, settings.line, settings.line_lease_s)
    ctx = Context(
        engine=engine,
        settings=settings,
        profile="tiny",
        paths=LinePaths(home, settings.line),
        device=Device("cpu", "CPU", 1 << 34, "device:bench:cpu"),
        leadership=leadership,
        stop=stop,
        live=(watch := Watch(stop)),
    )
    marks = {"claim": time.time()}
    tick(ctx)
    marks["export"] = time.time()
    tick(ctx)
    marks["start"] = time.time()
    tick(ctx)
    leadership.give_back()
    return parts_of(marks | watch.marks)


def parts_of(marks: dict[str, float]) -> dict[str, float]:
    """Return how long each part took: up to the mark that follows it."""
    ordered = sorted((at, name) for name, at in marks.items() if at <= marks["step"])
    parts = {name: round(then - at, 2) for (at, name), (then, _) in pairwise(ordered)}
    return {**parts, "first_step_s": round(marks["step"] - marks["claim"], 2)}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = read_library(NUM_FILES)
    with tempfile.TemporaryDirectory() as folder, open_server(Path(folder) / "postgres") as server:
        engine = create_engine(server.url, application_name="bench")
        upgrade(engine)
        base = Path(folder) / "base"
        chosen: dict[str, Any] = PROFILES["tiny"]["daemon"] | {"base_model": str(base), "tracker": "none"}
        make_base(base, DaemonSettings(**chosen), texts[:NUM_TOKENIZER_FILES])
        store(engine, texts)
        settings = [DaemonSettings(**chosen | {"line": f"line{number}"}) for number in range(options.rounds + 1)]
        cold, *warm = [measure(engine, Path(folder) / "home", one) for one in settings]
        engine.dispose()
    found = {"cold": cold, "warm": {name: round(median(one.get(name, 0.0) for one in warm), 2) for name in warm[0]}}
    found["warm_first_step_s"] = [one["first_step_s"] for one in warm]
    if options.json:
        print(json.dumps(found))
        return
    for name in cold:
        print(f"{name:20} cold {cold[name]:6.2f}  warm {found['warm'].get(name, 0.0):6.2f}")


if __name__ == "__main__":
    main()
