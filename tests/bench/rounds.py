"""Rounds of real lines for benches: ingest, claims, trainer and gate are the service's own, in one process.

Only the start of a child for each verb is left out: its verbs run here, so that torch is imported once.
"""

import dataclasses
import gc
import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from bitsandbytes.optim.optimizer import GlobalOptimManager

from daemon import rounds, verdict
from daemon.config import DaemonSettings
from daemon.context import Context
from daemon.device import Device
from daemon.gate import Gate, judge
from daemon.job import DONE
from daemon.leadership import Leadership
from daemon.live import Live
from daemon.paths import LinePaths
from daemon.supervise import Child as Supervisor
from daemon.supervise import Outcome
from daemon.tick import tick
from daemon.training.__main__ import run as run_verb
from daemon.training.child import Child
from ingest.commands import queue_source
from ingest.config import IngestSettings
from ingest.sources import normalise_source
from ingest.worker import work
from monitoring.progress import Progress
from schema.database import create_engine, upgrade
from schema.embedded import open_server
from schema.lines import fetch_line, open_line
from schema.runs import Run, fetch_runs

log = logging.getLogger(__name__)
LEASE_S = 36_000  # nobody else is there
_COSTS = sa.text(
    """
    SELECT r.number, r.kind, r.state, p.source, e.model, sum(e.value * e.num_bytes) / sum(e.num_bytes) AS bits_per_byte
    FROM training_runs r JOIN evaluations e ON e.run_id = r.id
    JOIN (SELECT DISTINCT unit, repository_id FROM processed_files WHERE split = 'test') f ON f.unit = e.unit
    JOIN repositories p ON p.id = f.repository_id
    WHERE r.line_id = :line_id AND e.unit <> '' AND e.metric = 'bits_per_byte'
    GROUP BY r.number, r.kind, r.state, p.source, e.model ORDER BY r.number, p.source, e.model
    """
)


@contextmanager
def open_home() -> Iterator[tuple[sa.Engine, Path]]:
    """Yield an engine on a migrated database of its own and the folder it lies in; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="codelupe-bench-") as home, open_server(Path(home), grace_s=0.0) as server:
        engine = create_engine(server.url, application_name="bench")
        try:
            upgrade(engine)
            yield engine, Path(home)
        finally:
            engine.dispose()


def make_line(engine: sa.Engine, home: Path, settings: DaemonSettings) -> Context:
    """Open a line; return what its ticks work with."""
    with engine.begin() as conn:
        open_line(conn, name=settings.line, base_model=settings.base_model)
    return Context(
        engine=engine,
        settings=settings,
        profile="tiny",
        paths=LinePaths(home, settings.line),
        device=Device("cpu", "CPU", 1 << 34, "device:bench:cpu"),
        leadership=Leadership(engine, settings.line, LEASE_S),
        stop=threading.Event(),
        live=Live(Progress(every_s=60.0)),
    )


def ingest_tree(engine: sa.Engine, home: Path, tree: Path, **settings: Any) -> str:
    """Read a folder as a worker does; return the name under which it is stored."""
    source = normalise_source(str(tree))
    with engine.begin() as conn:
        queue_source(conn, source)
    own = IngestSettings(ingest_workers=1, poll_interval_s=0.05, **settings)
    work(engine, own, home=home, stop=threading.Event(), once=True)
    return source.source


def run_to_end(ctx: Context, *, gated: bool = True) -> list[Run]:
    """Tick until nothing is left to do; return the runs that came of it, oldest first. Not gated, all are promoted."""
    before = {run.number for run in _fetch_runs(ctx)}
    run_child = rounds.run_child
    rounds.run_child, verdict.judge = run_here, judge if gated else promote_all
    try:
        while tick(ctx):
            pass
    finally:
        rounds.run_child, verdict.judge = run_child, judge
    ctx.leadership.give_back()
    return [run for run in reversed(_fetch_runs(ctx)) if run.number not in before]


def promote_all(*items: Any, **settings: Any) -> Gate:
    """Return the gate's figures, and the verdict that would be given without it."""
    return dataclasses.replace(judge(*items, **settings), verdict="promote", reason="not_gated")


def run_here(verb: str, job: Path, child: Supervisor, *, stop_grace_s: float) -> Outcome:
    """Do a child's work in this process."""
    status = run_verb(verb, job, Child(child.on_event))
    GlobalOptimManager.get_instance().initialize()  # type: ignore[no-untyped-call]  # it would keep the model alive
    gc.collect()
    if status != DONE:
        log.error("%s failed: %s", verb, (job / "error.json").read_text())
    return "done" if status == DONE else "failed"


def fetch_costs(ctx: Context) -> dict[int, dict[str, dict[str, float]]]:
    """Return bits per byte of held-out code by run, source and model."""
    costs: dict[int, dict[str, dict[str, float]]] = {}
    with ctx.engine.connect() as conn:
        line = fetch_line(conn, ctx.settings.line)
        for row in conn.execute(_COSTS, {"line_id": line.id if line else None}):
            costs.setdefault(row.number, {}).setdefault(row.source, {})[row.model] = row.bits_per_byte
    return costs


def _fetch_runs(ctx: Context) -> list[Run]:
    with ctx.engine.connect() as conn:
        line = fetch_line(conn, ctx.settings.line)
        return fetch_runs(conn, line.id, limit=1000) if line else []
