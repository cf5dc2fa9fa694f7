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
from daemon.training.ranks import rank
from monitoring.gpu import Gpus

log = logging.getLogger(__name__)
FIGURES = (
    *("loss", "smoothed_loss", "lr", "grad_norm", "epoch", "tokens_per_s", "tokens", "data_wait_s", "micro_batch"),
    *("bits_per_byte", "best"),
)
COMPLETION = ("path", "language", "prompt", "expected", "completion")
CLOSE_TIMEOUT_S = 5.0


@contextlib.contextmanager
def track(verb: str, job: Job, job_dir: Path, child: Child) -> Iterator[None]:
    """Copy the events of a training to W&B; nothing of it can stop or delay the training."""
    if verb not in {"pretrain", "train", "full"} or rank() > 0 or job.settings.tracker != "wandb":
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
        with contextlib.closing(Gpus()) as gpus:
            run = _open(job, job_dir)
            while (event := events.get()) is not None:
                _log(run, event, gpus)
            run.finish()
    except Exception:  # the edge of the thread: tracking is a courtesy
        log.exception("Weights & Biases stopped following", extra={"event": "tracker_failed"})


def _log(run: Any, event: Event, gpus: Gpus) -> None:
    name = event["event"]
    if name in {"step", "eval"}:
        figures = {f"{name}/{figure}": event[figure] for figure in FIGURES if figure in event}
        run.log(figures | (gpus.read() if name == "step" else {}), event["step"])
    elif name == "completions":
        import wandb

        rows = [[one[column] for column in COMPLETION] for one in event["completions"]]
        run.log({"eval/completions": wandb.Table(columns=list(COMPLETION), data=rows)}, event["step"])


def _open(job: Job, job_dir: Path) -> Any:
    folder = job_dir / "wandb"
    folder.mkdir(exist_ok=True)
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[name] = str(folder)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    told = job.model_dump(mode="json", include={"line", "run", "attempt", "tick", "decided_by", "kind", "seed", "base"})
    return wandb.init(
        project=job.settings.wandb_project,
        name=f"{job.line}-{job.run:04d}",
        # Rounds of a line are one group; its base and its adapters are not compared with each other.
        group=job.line,
        job_type=job.kind,
        tags=[f"round-{job.run:04d}"],
        config=job.settings.model_dump(mode="json") | told,
        mode="online" if os.environ.get("WANDB_API_KEY") else "offline",
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,  # its own measurements ask a cloud's metadata server; NVML tells the same
            x_disable_machine_info=True,
            x_save_requirements=False,
        ),
    )
