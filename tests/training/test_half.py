"""float16: a step whose scaled gradients overflow is skipped, counted and told, and only many in a row end a run.

float16 is for GPUs; what scales, finds and skips is the same on a CPU, so the loop runs here with a scaler for that.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from daemon.job import MEMBERS, Job
from daemon.training.architectures import make_model
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Child, Failed, Stopped
from daemon.training.progress import Progress
from daemon.training.schedule import rate_share
from daemon.training.stopping import MOST_SKIPPED
from daemon.training.stream import StreamedRows
from daemon.training.train import make_plan
from daemon.training.trainer import PackedTrainer

MakeJob = Callable[..., tuple[Job, Path]]
NUM_STEPS = 24
FITS, TOO_LARGE, HOPELESS = 2.0**10, 2.0**24, 2.0**120


def run(
    made: tuple[Job, Path], child: Child, scale: float, optimizer: str = "adamw_torch", *, lost: bool = False
) -> tuple[Progress, Any]:
    """Train a micro model in float16, its gradients scaled by so much at first; return the progress and the model."""
    job, job_dir = made
    tokenizer = load_base_tokenizer(job)
    rows = StreamedRows(job_dir / MEMBERS, tokenizer, job.settings, seed=7, num_rows=NUM_STEPS)
    plan = dataclasses.replace(make_plan(job, rows, job.settings.micro_batch, flat=False), optimizer=optimizer)
    torch.manual_seed(1)
    model = make_model(job.settings, tokenizer)
    if lost:
        model.lm_head.weight.data.fill_(torch.nan)
    trainer = PackedTrainer(model, rows, None, plan, job_dir / "checkpoints", child)
    trainer.accelerator.native_amp, trainer.accelerator.scaler = True, torch.amp.GradScaler("cpu", init_scale=scale)
    return trainer.run(), model


def make(make_job: MakeJob) -> tuple[Job, Path]:
    return make_job(16, compute_dtype="float16", sequence_tokens=64, micro_batch=1)


def skipped_of(child: Any) -> int:
    return [event["note"] for event in child.of("note")].count("step_skipped")


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_8bit"])
def test_steps_whose_gradients_overflow_are_skipped_and_the_schedule_waits_for_the_optimizer(
    make_job: MakeJob, recorder: Any, optimizer: str
) -> None:
    made, child = make(make_job), recorder()
    progress, _ = run(made, child, TOO_LARGE, optimizer)
    steps, taken = child.of("step"), ["grad_norm" in event for event in child.of("step")]
    assert taken[:3] == [False] * 3
    assert taken[-1]
    assert progress.num_skipped == skipped_of(child) == taken.count(False)
    assert progress.skipped_in_a_row == 0
    shares = [rate_share(sum(taken[:step]), num_steps=NUM_STEPS, warmup_steps=1) for step in range(NUM_STEPS)]
    assert [event["lr"] for event in steps] == pytest.approx(
        [made[0].settings.learning_rate * share for share in shares]
    )
    assert steps[-1]["loss"] < steps[taken.index(True)]["loss"] - 0.2


def test_a_run_that_is_resumed_goes_on_with_the_scale_it_had(make_job: MakeJob, recorder: Any) -> None:
    whole, cut, again = recorder(), recorder(lambda event: event.get("step") == 3), recorder()
    expected = run(make(make_job), whole, TOO_LARGE)
    made = make(make_job)
    with pytest.raises(Stopped):
        run(made, cut, TOO_LARGE)
    found = run(made, again, TOO_LARGE)
    assert [event["loss"] for event in cut.of("step") + again.of("step")] == [
        event["loss"] for event in whole.of("step")
    ]
    assert found[0].num_skipped == expected[0].num_skipped
    assert all(map(torch.equal, found[1].parameters(), expected[1].parameters()))


def test_many_skipped_steps_in_a_row_end_the_run_and_say_what_to_set(make_job: MakeJob, recorder: Any) -> None:
    child = recorder()
    with pytest.raises(Failed, match="CODELUPE_COMPUTE_DTYPE=float32") as caught:
        run(make(make_job), child, HOPELESS)
    assert (caught.value.failure.reason, caught.value.failure.data_caused) == ("nan", False)
    assert len(child.of("step")) == MOST_SKIPPED - 1


def test_a_loss_that_is_no_number_ends_the_run_at_once(make_job: MakeJob, recorder: Any) -> None:
    with pytest.raises(Failed, match="step 1: loss nan") as caught:
        run(make(make_job), recorder(), FITS, lost=True)
    assert caught.value.failure.reason == "nan"
