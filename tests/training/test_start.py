"""The time to the first optimiser step: counted from the claim, told and kept, and not spent on what nobody runs."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from daemon.job import Job, Result
from daemon.training.start import watch_start
from daemon.training.train import train

MakeJob = Callable[..., tuple[Job, Path]]
LOADS = """
import gc, sys
from daemon.training.imports import import_verb
import_verb("train")
import bitsandbytes, torch
assert torch.compile.__module__ == "torch"
assert gc.isenabled()
print("torch._inductor.compile_fx" in sys.modules, sys.modules["datasets"])
"""


def test_it_counts_from_the_claim_is_told_once_and_kept_with_the_phases_before(
    make_job: MakeJob, recorder: Any
) -> None:
    job, job_dir = make_job(8)
    child = recorder()
    watch_start(datetime.now(UTC) - timedelta(hours=1), job_dir, child)
    train(job, job_dir, child)
    start_s = Result.model_validate_json((job_dir / "result.json").read_text()).start_s
    assert sorted(start_s, key=lambda name: start_s[name]) == ["tokenize", "load", "train", "first_step"]
    assert start_s["tokenize"] >= 3600
    assert [event["seconds"] for event in child.of("first_step")] == [start_s["first_step"]]


def test_a_child_that_goes_on_with_a_run_changes_nothing_of_it(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(8)
    (job_dir / "start.json").write_text('{"first_step": 4.5}')
    child = recorder()
    watch_start(datetime.now(UTC), job_dir, child)
    train(job, job_dir, child)
    assert child.of("first_step") == []
    assert Result.model_validate_json((job_dir / "result.json").read_text()).start_s == {"first_step": 4.5}


def test_the_libraries_come_without_the_compiler_and_without_others_data_sets() -> None:
    told = subprocess.run([sys.executable, "-c", LOADS], check=True, capture_output=True, text=True)
    assert told.stdout == "False None\n"
