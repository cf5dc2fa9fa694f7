"""Measure ingest's whole path, from clone to COPY with all stages on, beside a line counter and another pipeline.

`python -m tests.bench.ingest TREE… [--json] [--rounds 5] [--workers N] [--scaling] [--opencoder CHECKOUT]`, where a
TREE is a folder or a git repository. Every round stores all trees in a new database of an embedded PostgreSQL in a
temporary home; the best round counts, of the rivals too. Between the rounds:

- `scc`, where it is on PATH, counts the lines of the same languages of the same trees. `ratio_to_scc` is that of bytes
  per second, each of the bytes that it has read: ingest refuses tests and vendored files by their paths and reads them
  not, scc reads all. `ratio_of_times` is the seconds of scc over those of ingest for the same trees.
- OpenCoder's filters, where their checkout is given, judge a sample of the files; `ratio_to_opencoder` is that of files
  per second of one core's time. `--opencoder-python` is an interpreter with what its requirements.txt names.

What is absent is null. `--scaling` adds `workers_gain`: the rate over that with one worker, rounds alternating.
`db_share` is the share of the workers' time that went by while they saved.
"""

import argparse
import json
import logging
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from ingest.commands import queue_source
from ingest.config import IngestSettings
from ingest.sources import normalise_source
from ingest.worker import work
from schema.database import create_engine, upgrade
from schema.embedded import open_server
from tests.bench.rivals import count_lines, pick_files, time_judge, time_opencoder

_SCC_RUNS = 3
_SAMPLE_FILES = 100


@dataclass
class Round:
    """What one round stored, and how long its stages took (seconds, summed over the workers)."""

    seconds: float = 0.0
    num_files: int = 0
    num_bytes: int = 0
    num_rows: int = 0
    stages: Counter[str] = field(default_factory=Counter)


class _Visits(logging.Handler):
    """Adds up what the worker says of each visit."""

    def __init__(self, result: Round) -> None:
        super().__init__()
        self._result = result

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", "") == "repository_done" and isinstance(record.args, tuple):
            self._result.stages.update(record.stages)  # type: ignore[attr-defined]
            self._result.num_bytes += round(float(str(record.args[6])) * 1e6)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("trees", nargs="+", type=Path, metavar="TREE")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=IngestSettings().ingest_workers)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--opencoder", type=Path, metavar="CHECKOUT")
    parser.add_argument("--opencoder-python", default=sys.executable, metavar="PYTHON")
    arguments = parser.parse_args()
    report = measure([tree.resolve() for tree in arguments.trees], arguments)
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        for name, value in report.items():
            print(f"{name:15} {value}")


def measure(trees: list[Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the report; raises ValueError when nothing of the trees was stored."""
    rounds, singles, counts = [], [], []
    with open_databases() as make_engine:
        for _ in range(arguments.rounds):
            rounds.append(run_round(make_engine(), trees, arguments.workers))
            if arguments.scaling:
                singles.append(run_round(make_engine(), trees, 1))
            counts += [count for _ in range(_SCC_RUNS) if (count := count_lines(trees))]
    best = min(rounds, key=lambda each: each.seconds)
    if not best.num_rows:
        raise ValueError(f"nothing of {[str(tree) for tree in trees]} was stored: are they folders or repositories?")
    gain = {"workers_gain": round(min(each.seconds for each in singles) / best.seconds, 2)} if singles else {}
    return report_round(best, arguments.workers) | report_scc(best, counts) | report_opencoder(trees, arguments) | gain


def report_round(best: Round, num_workers: int) -> dict[str, Any]:
    """Return the figures of a round."""
    spent = sum(best.stages.values())
    return {
        "files": best.num_files,
        "bytes": best.num_bytes,
        "rows": best.num_rows,
        "seconds": round(best.seconds, 2),
        "files_per_s": round(best.num_files / best.seconds, 1),
        "mb_per_s": round(best.num_bytes / best.seconds / 1e6, 2),
        "stages": {name: round(seconds / spent, 3) for name, seconds in best.stages.most_common()},
        "db_share": round(best.stages["save"] / best.seconds / num_workers, 3),
        "rss_mb": round(max(resource.getrusage(who).ru_maxrss for who in _PROCESSES) / 1024, 1),
    }


def report_scc(best: Round, counts: list[tuple[int, float]]) -> dict[str, Any]:
    """Return the figures of the line counter, null where it has not run."""
    num_bytes, seconds = min(counts, key=lambda count: count[1], default=(None, None))
    if num_bytes is None or seconds is None:
        return dict.fromkeys(("scc_bytes", "scc_mb_per_s", "ratio_to_scc", "ratio_of_times"))
    rate = num_bytes / seconds
    return {
        "scc_bytes": num_bytes,
        "scc_mb_per_s": round(rate / 1e6, 1),
        "ratio_to_scc": round(best.num_bytes / best.seconds / rate, 4),
        "ratio_of_times": round(seconds / best.seconds, 4),
    }


def report_opencoder(trees: list[Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of the judges on a sample of the files, rounds alternating, null for one that is absent."""
    files = pick_files(trees, _SAMPLE_FILES)
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        ours.append(time_judge(files))
        if arguments.opencoder:
            theirs.append(time_opencoder(files, arguments.opencoder.resolve(), arguments.opencoder_python))
    return {
        "scored_files_per_s": round(len(files) / min(ours), 1),
        "opencoder_files_per_s": round(len(files) / min(theirs), 1) if theirs else None,
        "ratio_to_opencoder": round(min(theirs) / min(ours), 1) if theirs else None,
    }


_PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


@contextmanager
def open_databases() -> Iterator[Any]:
    """Yield what makes an engine on a new, migrated database of a server in a temporary home."""
    with tempfile.TemporaryDirectory(prefix="codelupe-bench-") as home, open_server(Path(home), grace_s=0.0) as server:
        url = sa.make_url(server.url)
        admin = url.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
        engines: list[sa.Engine] = []

        def make() -> tuple[sa.Engine, Path]:
            name = f"round_{len(engines)}"
            with psycopg.connect(admin, autocommit=True) as conn:
                conn.execute(f"CREATE DATABASE {name}")
                conn.execute("CHECKPOINT")
            database = url.set(database=name).render_as_string(hide_password=False)
            engines.append(create_engine(database, application_name="bench"))
            upgrade(engines[-1])
            return engines[-1], Path(home)

        try:
            yield make
        finally:
            for engine in engines:
                engine.dispose()


def run_round(place: tuple[sa.Engine, Path], trees: list[Path], num_workers: int) -> Round:
    """Queue the trees and drain the queue, from the first claim to the last commit."""
    engine, home = place
    result = Round()
    settings = IngestSettings(ingest_workers=num_workers, poll_interval_s=0.05)
    with engine.begin() as conn:
        for tree in trees:
            queue_source(conn, normalise_source(str(tree)))
    handler, log = _Visits(result), logging.getLogger("ingest.handling")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    start = time.perf_counter()
    work(engine, settings, home=home, stop=threading.Event(), once=True)
    result.seconds = time.perf_counter() - start
    log.removeHandler(handler)
    with engine.begin() as conn:
        result.num_rows = conn.execute(sa.text("SELECT count(*) FROM processed_files")).scalar_one()
        num_refused = conn.execute(sa.text("SELECT count(*) FROM refused_files")).scalar_one()
    result.num_files = result.num_rows + num_refused
    engine.dispose()
    return result


if __name__ == "__main__":
    main()
