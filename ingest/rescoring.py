"""`codelupe ingest rescore`: stored files get the present scorer's scores, in batches, while the service runs."""

import json
import logging
import select
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import click
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingest.box import kill_group, start_child
from ingest.config import IngestSettings, Settings
from ingest.entries import show_text
from monitoring.logs import setup_logging
from monitoring.progress import Progress, Task
from monitoring.stopping import stop_on_signals
from schema.commands import open_engine
from schema.failpoints import hit
from schema.rescores import Rescored, Stale, count_stale, fetch_stale, save_scores
from sourcecode.scores import SCORER_VERSION

log = logging.getLogger(__name__)
_BATCH_ROWS = 100
_ROW_TIMEOUT_S = 30.0
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_MAX_ANSWER_BYTES = 1_000_000


class _Answer(BaseModel):
    """What the child says of one text."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    score: Annotated[float, Field(ge=0, le=100)]
    detail: dict[str, Any]


class Scorer:
    """A child that scores texts one by one; a text that kills it, or takes too long, costs itself alone."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Open the child's log: a file without a name, of which a kill leaves nothing."""
        self._log = tempfile.TemporaryFile()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the child."""
        self._end()
        self._log.close()

    def score(self, file: Stale) -> Rescored | None:
        """Return the new score of a file; None, and a line in the log, where there is none."""
        try:
            answer = _Answer.model_validate_json(self._ask({"language": file.language, "text": file.content}))
        except (OSError, ValidationError):
            self._end()
            log.warning(
                "%s (file %d) cannot be scored again", show_text(file.file_path), file.id, extra={"event": "unscored"}
            )
            return None
        return Rescored(file.id, answer.score, answer.detail)

    def _ask(self, asked: dict[str, str]) -> bytes:
        process = self._process or self._start()
        assert process.stdin is not None  # noqa: S101 - start_child makes both pipes
        assert process.stdout is not None  # noqa: S101
        _write(process, asked)
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < _MAX_ANSWER_BYTES:
            if not select.select([process.stdout], [], [], _ROW_TIMEOUT_S)[0]:
                raise TimeoutError
            chunk = process.stdout.read(1 << 16)
            if not chunk:
                raise BrokenPipeError
            answer += chunk
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        settings = self._settings
        self._process = start_child("ingest.scorer", _ENVIRONMENT, Path("/"), self._log)
        limits = {"memory_bytes": settings.child_memory_bytes, "file_bytes": 1_048_576, "cpu_s": settings.child_cpu_s}
        _write(self._process, limits)
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            kill_group(self._process)
            self._process = None


def run_rescore(
    engine: sa.Engine,
    settings: IngestSettings,
    *,
    stop: threading.Event,
    limit: int | None = None,
    task: Task | None = None,
) -> dict[str, int]:
    """Score files again until none is left, `limit` are done or `stop` is set; return the figures.

    Each batch is a transaction: killed anywhere, it goes on where it was.
    """
    with engine.begin() as conn:
        total = count_stale(conn, SCORER_VERSION)
    total = total if limit is None else min(limit, total)
    num_done = num_failed = after = 0
    with Scorer(settings) as scorer:
        while num_done + num_failed < total and not stop.is_set():
            with engine.begin() as conn:
                left = min(_BATCH_ROWS, total - num_done - num_failed)
                files = fetch_stale(conn, SCORER_VERSION, after=after, limit=left)
            if not files:
                break
            rows, num_asked = _score_batch(scorer, files, stop)
            hit("rescore.before_save")
            with engine.begin() as conn:
                save_scores(conn, rows, SCORER_VERSION)
            hit("rescore.after_save")
            after = files[-1].id
            num_done, num_failed = num_done + len(rows), num_failed + num_asked - len(rows)
            if task is not None:
                task.update(num_done + num_failed, total, failed=num_failed)
    with engine.begin() as conn:
        left = count_stale(conn, SCORER_VERSION)
    return {"scorer_version": SCORER_VERSION, "rescored": num_done, "failed": num_failed, "left": left}


def _score_batch(scorer: Scorer, files: Sequence[Stale], stop: threading.Event) -> tuple[list[Rescored], int]:
    """Return the new scores of a batch, and how many files were looked at before the stop."""
    rows: list[Rescored] = []
    for num_asked, file in enumerate(files):
        if stop.is_set():
            return rows, num_asked
        if (row := scorer.score(file)) is not None:
            rows.append(row)
    return rows, len(files)


@click.command()
@click.option("--limit", type=click.IntRange(min=1), help="Score at most so many files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def rescore(settings: Settings, limit: int | None, as_json: bool) -> None:
    """Give stored files that an older version of the scorer has scored the present one's scores.

    Workers and training may go on meanwhile; broken off, it goes on where it was. What a run has claimed stays claimed.
    """
    setup_logging(level=settings.monitoring.log_level, file=settings.home / "logs" / "ingest.log")
    stop = threading.Event()
    with (
        open_engine(settings) as engine,
        stop_on_signals(stop),
        Progress(every_s=settings.monitoring.progress_every_s) as progress,
    ):
        task = progress.task("rescore")
        report = run_rescore(engine, settings.ingest, stop=stop, limit=limit, task=task)
        task.done()
    words = "{rescored} files scored by version {scorer_version}, {failed} failed, {left} left".format(**report)
    click.echo(json.dumps(report) if as_json else words)


def _write(process: subprocess.Popen[bytes], document: dict[str, Any]) -> None:
    assert process.stdin is not None  # noqa: S101
    view = memoryview(json.dumps(document).encode() + b"\n")
    while view:
        view = view[process.stdin.write(view) or 0 :]
