"""One process for each device, by torchrun: the parent sees a single child, its status and its reason."""

import json
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import parse_args, run

from daemon.job import DONE, FAILED, STOPPED, Failure
from daemon.training.child import save_failure
from daemon.training.failures import means_lost_peer
from daemon.training.progress import read_smaller


def launch(verb: str, job_dir: Path, num_devices: int) -> int:
    """Run a verb in so many processes; return the status of the whole.

    They share our standard input: whichever reads an order tells the others, and each of them ends when it closes. The
    first one that fails ends all; its reason is that of the run. Where one's memory ran out and it left word of a
    smaller way, all begin anew in that one, from the last checkpoint.
    """
    words = ["--standalone", "--nproc-per-node", str(num_devices), "--module", "daemon.training", verb, str(job_dir)]
    try:
        while (status := _launch_once(words, job_dir, num_devices)) is None:
            pass
    except SignalException as stopped:  # torchrun's, at any moment from its first launch on
        return STOPPED if stopped.sigval == signal.SIGTERM else FAILED
    return status


def _launch_once(words: list[str], job_dir: Path, num_devices: int) -> int | None:
    """Return the status of the whole; None: a smaller way is to be tried."""
    for old in job_dir.glob("error-*.json"):
        old.unlink()
    smaller = read_smaller(job_dir)
    try:
        run(parse_args(words))  # type: ignore[no-untyped-call]
    except ChildFailedError as failed:
        rank, failure = find_origin(failed.failures, job_dir)
        if failure.exitcode == STOPPED:
            return STOPPED
        if read_smaller(job_dir) != smaller:
            return None
        _tell(job_dir, rank, num_devices, failure)
        return FAILED
    return DONE


def find_origin(failures: Mapping[int, ProcessFailure], job_dir: Path) -> tuple[int, ProcessFailure]:
    """Return the rank and the failure, of several, that the others came of.

    It is among those of the first second, as torchrun knows no finer: it ends the others itself, and counts them too.
    Of those, one whose peer was gone comes after any that died without a word, or of its own fault.
    """
    first = min(failure.timestamp for failure in failures.values())
    early = [(rank, failure) for rank, failure in failures.items() if failure.timestamp <= first + 1]

    def follows(rank: int) -> bool:
        told = job_dir / f"error-{rank}.json"
        return told.exists() and means_lost_peer(json.loads(told.read_bytes())["message"])

    return min(early, key=lambda failed: (follows(failed[0]), failed[1].timestamp))


def _tell(job_dir: Path, rank: int, num_devices: int, failure: ProcessFailure) -> None:
    """Make the reason of the process that failed first that of the run."""
    told = job_dir / f"error-{rank}.json"
    if told.exists():
        shutil.copyfile(told, job_dir / "error.json")
        return
    how = f"by signal {-failure.exitcode}" if failure.exitcode < 0 else f"with status {failure.exitcode}"
    message = f"the process of device {rank} of {num_devices} ended {how} without a word: see child.log"
    save_failure(job_dir / "error.json", Failure(reason="exception", message=message, data_caused=False))
