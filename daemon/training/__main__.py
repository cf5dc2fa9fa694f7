"""`python -m daemon.training VERB JOB_DIR`: one verb as a child. Files: daemon/job.py; pipe: child.py."""

import contextlib
import json
import logging
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from daemon.job import DONE, FAILED, JOB, STOPPED, Job
from daemon.training.ahead import making_ahead
from daemon.training.child import Child, Stopped, error_file, open_child, save_failure
from daemon.training.failures import classify
from daemon.training.imports import import_verb
from daemon.training.start import watch_start
from monitoring.logs import setup_logging
from schema import failpoints

log = logging.getLogger(__name__)
IDS = ("line", "run", "attempt", "tick", "decided_by")
VERBS = ("pretrain", "train", "full", "range_test", "evaluate", "complete")
SHARED = ("train", "full")  # by all devices that the job asks for


def main() -> int:
    """Parse the two arguments and run."""
    if len(sys.argv) != 3 or sys.argv[1] not in VERBS:
        sys.stderr.write(f"usage: python -m daemon.training {'|'.join(VERBS)} JOB_DIR\n")
        return 2
    verb, job_dir = sys.argv[1], Path(sys.argv[2]).resolve()
    ids = read_ids(job_dir)
    setup_logging(ids=ids)
    num_devices = read_num_devices(job_dir) if verb in SHARED else 1
    if num_devices > 1 and "RANK" not in os.environ:
        from daemon.training.launch import launch

        set_environment(os.environ, num_devices)
        return launch(verb, job_dir, num_devices)
    log.info("%s begins, pid %d", verb, os.getpid(), extra={"event": "child_begun", "verb": verb})
    status = run(verb, job_dir, open_child(ids))
    if "RANK" in os.environ:
        # Threads of gloo may hold tensors even now. One that lets go of them while Python ends itself is stopped by it:
        # that aborts the process, and with it the run, https://github.com/pytorch/pytorch/pull/179291
        logging.shutdown()
        os._exit(status)
    return status


def read_ids(job_dir: Path) -> dict[str, Any]:
    """Return what names this child in its log and its events; nothing of a job that cannot be read, or of none."""
    try:
        job = json.loads((job_dir / JOB).read_bytes())
    except (OSError, ValueError):  # said by the verb, which cannot work without it
        return {}
    return {name: job[name] for name in IDS if job.get(name) is not None}


def read_num_devices(job_dir: Path) -> int:
    """Return how many devices train together; one where the job cannot be read, as the verb will say."""
    try:
        return int(json.loads((job_dir / JOB).read_bytes())["settings"]["num_devices"])
    except (OSError, ValueError, KeyError):
        return 1


def run(verb: str, job_dir: Path, child: Child) -> int:
    """Run a verb; turn what it raises into the exit status and error.json."""
    try:
        work(verb, job_dir, child)
    except Stopped:
        return STOPPED
    except Exception as error:  # noqa: BLE001  (the edge of the child: the parent must learn why)
        failure = classify(error)
    else:
        return DONE
    told = {"event": "child_failed", "verb": verb, "reason": failure.reason, "traceback": failure.traceback}
    log.error("%s: %s", failure.reason, failure.message, extra=told)
    save_failure(error_file(job_dir), failure)
    return FAILED


def work(verb: str, job_dir: Path, child: Child) -> None:
    """Do it. Libraries are imported here: they take seconds, and the pipe is obeyed meanwhile."""
    if "RANK" not in os.environ:
        set_environment(os.environ)
    # The parent hands the variable on only where its own profile let it be armed.
    failpoints.arm(os.environ, "tiny")
    if verb == "complete":  # short, and no reason to wait for a training
        child.phase("import")
        import_verb(verb)(job_dir, child)
        return
    job = Job.model_validate_json((job_dir / JOB).read_text())
    if verb == "train" and job.claimed_at is not None and os.environ.get("RANK", "0") == "0":
        watch_start(job.claimed_at, job_dir, child)
    with making_ahead(job_dir, child) if verb == "train" else contextlib.nullcontext() as take:
        child.phase("import")
        act = import_verb(verb)
        from daemon.training.device import hold_device
        from daemon.training.model import device_name
        from daemon.training.ranks import parting
        from daemon.training.tracking import track

        ahead = {} if take is None else {"take": take}
        with hold_device(job_dir.parents[1], device_name(job), child), track(verb, job, job_dir, child), parting():
            act(job, job_dir, child, **ahead)


def set_environment(environment: MutableMapping[str, str], num_devices: int = 1) -> None:
    """Keep libraries from talking to anybody about what they do, and torch from seeing a GPU too many.

    A process trains on one: with two in sight, and no other process, Trainer would double the batch, and split it.
    """
    environment.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    environment.setdefault("DO_NOT_TRACK", "1")
    environment.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    environment.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # else a service of the hub is asked to convert
    environment.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi counts, which the daemon asks
    there = environment.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(num_devices)))).split(",")
    environment["CUDA_VISIBLE_DEVICES"] = ",".join(name.strip() for name in there[:num_devices])


if __name__ == "__main__":
    sys.exit(main())
