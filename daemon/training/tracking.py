"""Weights & Biases beside the run: offline unless WANDB_API_KEY is set, in a thread so that it delays nothing."""

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon.job import Event, Job
from daemon.training.child import Child

log = logging.getLogger(__name__)
FIGURES = ("loss", "lr", "grad_norm", "tokens_per_s", "tokens", "bits_per_byte")
CLOSE_TIMEOUT_S = 5.0


@contextlib.contextmanager
def track(verb: str, job: Job, job_dir: Path, child: Child) -> Iterator[None]:
    """Copy the events of a training to W&B; nothing of it can stop or delay the training."""
    if verb not in {"pretrain", "train"}:
        yield
        return
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    child.also(events.put)
    thread = threading.Thread(target=_follow, args=(events, job, job_dir), name="wandb", daemon=True)
    thread.start()
    try:
        yield
    finally:
        events.put(None)
        thread.join(CLOSE_TIMEOUT_S)


def _follow(events: "queue.SimpleQueue[Event | None]", job: Job, job_dir: Path) -> None:
    try:
        run = _open(job, job_dir)
        while (event := events.get()) is not None:
            if event["event"] in {"step", "eval"}:
                run.log({f"{event['event']}/{name}": event[name] for name in FIGURES if name in event}, event["step"])
        run.finish()
    except Exception:  # the edge of the thread: tracking is a courtesy
        log.exception("Weights & Biases stopped following", extra={"event": "tracker_failed"})


def _open(job: Job, job_dir: Path) -> Any:
    folder = job_dir / "wandb"
    folder.mkdir(exist_ok=True)
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[name] = str(folder)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb.init(
        project=job.settings.wandb_project,
        name=f"{job.line}-{job.run:04d}",
        config=job.settings.model_dump(mode="json"),
        mode="online" if os.environ.get("WANDB_API_KEY") else "offline",
        settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True),
    )
