"""A daemon's parts on a fresh database, with a model small enough to train within seconds."""

import sys
import threading

import pytest

from daemon.config import DaemonSettings
from daemon.context import Context
from daemon.device import Device
from daemon.leadership import Leadership
from daemon.live import Live
from daemon.paths import LinePaths
from monitoring.progress import Progress
from schema.lines import open_line
from tests.builders import add_files, add_repository

MICRO = {
    "line": "micro",
    "base_model": "local:tiny",
    "threshold_rows": 20,
    "min_quality": 0,
    "max_run_chars": 60_000,
    "max_test_chars": 90_000,
    "base_max_chars": 80_000,
    "min_test_units": 4,
    "check_interval_s": 1,
    "line_lease_s": 20,
    "sequence_tokens": 128,
    "max_chars": 1000,
    "hidden_size": 64,
    "num_layers": 1,
    "intermediate_size": 128,
    "vocabulary": 512,
    "lora_rank": 8,
    "lora_alpha": 16,
    "learning_rate": 4e-3,
    "micro_batch": 8,
    "accumulation": 1,
    "checkpointed_layers": 0,
    "compute_dtype": "float32",
    "threads": 1,
    "back_off_s": 1,
}


@pytest.fixture
def settings():
    return DaemonSettings(**MICRO)


@pytest.fixture
def make_context(engine, tmp_path):
    """Build a daemon's context; two of them on one database are two daemons."""

    def make(settings: DaemonSettings, holder: str = "daemon") -> Context:
        with engine.begin() as conn:
            open_line(conn, name=settings.line, base_model=settings.base_model)
        return Context(
            engine=engine,
            settings=settings,
            profile="tiny",
            paths=LinePaths(tmp_path / "home", settings.line),
            device=Device("cpu", "CPU", 1 << 34, "device:test:cpu"),
            leadership=Leadership(engine, holder, settings.line_lease_s),
            stop=threading.Event(),
            live=Live(Progress(stream=sys.stderr)),
        )

    return make


@pytest.fixture
def ctx(make_context, settings):
    return make_context(settings)


@pytest.fixture
def rows(engine):
    """Store new rows when called: forty to train on and eight held out, each held-out one a unit of its own."""

    def store(**held_out: float) -> None:
        with engine.begin() as conn:
            repository = add_repository(conn)
            add_files(conn, repository, 40)
            for number in range(8):
                add_files(conn, repository, 1, split="test", unit=f"held_{repository}_{number}", **held_out)

    return store
