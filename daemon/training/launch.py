"""One process for each device, by torchrun: the parent sees a single child, its status and its reason."""

import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import parse_args, run

from daemon.job import DONE, FAILED, STOPPED, Failure
from daemon.training.child import save_failure
from daemon.training.progress import read_smaller


def launch(verb: str, job_dir: Path, num_devices: int) -> int:
    """Run a verb in so many processes; return the status of the whole.

    They share our standard input: whichever reads an order tells the others, and each of them ends when it closes. The
    first one that fails ends all; its reason is that of the run. Where one's memory ran out and it left word of a
    smaller way, all begin anew in that one, from the last checkpoint.
    """
    words = ["--standalone", "--nproc-per-node", str(num_devices), "--module", "daemon.training", verb, str(job_dir)]
    while True:
        for old in job_dir.glob("error-*.json"):
            old.unlink()
        smaller = read_smaller(job_dir)
        try:
            run(parse_args(words))  # type: ignore[no-untyped-call]
        except SignalException as stopped:
            return STOPPED if stopped.sigval == signal.SIGTERM else FAILED
        except ChildFailedError as failed:
            rank, failure = find_origin(failed.failures, job_dir)
            if failure.exitcode == STOPPED:
                return STOPPED
            if read_smaller(job_dir) != smaller:
                continue
            _tell(job_dir, rank, num_devices, failure)
            return FAILED
        return DONE


def find_origin(failures: Mapping[int, ProcessFailure], job_dir: Path) -> tuple[int, ProcessFailure]:
    """Return the rank and the failure, of several, that the others came of: torchrun knows the second of each alone.

    A process whose peer is gone says so with the reason `device`, at once: it comes after any that died without a word,
    or has another reason.
    """

    def follows(rank: int) -> bool:
        told = job_dir / f"error-{rank}.json"
        return told.exists() and Failure.model_validate_json(told.read_text()).reason == "device"

    return min(failures.items(), key=lambda failed: (follows(failed[0]), failed[1].timestamp))


def _tell(job_dir: Path, rank: int, num_devices: int, failure: ProcessFailure) -> None:
    """Make the reason of the process that failed first that of the run."""
    told = job_dir / f"error-{rank}.json"
    if told.exists():
        shutil.copyfile(told, job_dir / "error.json")
        return
    how = f"by signal {-failure.exitcode}" if failure.exitcode < 0 else f"with status {failure.exitcode}"
    message = f"the process of device {rank} of {num_devices} ended {how} without a word: see child.log"
    save_failure(job_dir / "error.json", Failure(reason="exception", message=message, data_caused=False))
