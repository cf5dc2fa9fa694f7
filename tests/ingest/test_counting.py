"""The queue as a metric: sources count as being read while their visits last, whoever reads them."""

import contextlib
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from ingest.commands import queue_source
from ingest.counting import QueueGauge
from ingest.sources import normalise_source
from ingest.worker import Worker, ingest_one
from monitoring.metrics import REGISTRY
from schema.repositories import claim_repository, refuse_repository
from tests.ingest.helpers import SETTINGS
from tests.waiting import wait_for


@pytest.fixture
def worker(engine: sa.Engine, tmp_path: Path, hanging_server: str) -> Worker:
    """A worker with one source in the queue, whose server never answers."""
    with engine.begin() as conn:
        queue_source(conn, normalise_source(f"{hanging_server}/a"))
    return Worker(engine, SETTINGS, tmp_path / "home", threading.Event(), queue=QueueGauge(every_s=0))


def count_working() -> float | None:
    """Return how many sources are being read, as the metric has it."""
    return REGISTRY.get_sample_value("codelupe_ingest_queue_repositories", {"state": "working"})


def test_a_source_counts_as_being_read_while_its_visit_lasts(worker: Worker) -> None:
    with contextlib.ExitStack() as left:
        thread = threading.Thread(target=ingest_one, args=(worker,))
        thread.start()
        left.callback(thread.join)
        left.callback(worker.stop.set)

        wait_for(lambda: count_working() == 1, "a source that counts")

    assert count_working() == 0


def test_an_idle_worker_sees_others_begin_and_end_a_visit(worker: Worker) -> None:
    with worker.engine.begin() as conn:
        claim = claim_repository(conn, lease_s=60)
    assert claim
    assert not ingest_one(worker)
    assert count_working() == 1

    with worker.engine.begin() as conn:
        refuse_repository(conn, claim, "not_found")
    assert not ingest_one(worker)

    assert count_working() == 0
