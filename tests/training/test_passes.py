"""How passes are made: chosen for the memory that is there, told, kept, and made smaller when memory runs out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from daemon.fitting import make_fit
from daemon.job import MEMBERS, Job, Result
from daemon.shapes import local_shape
from daemon.training import trainer as trainer_module
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Child, Failed, Stopped
from daemon.training.material import make_rows
from daemon.training.range_test import range_test
from daemon.training.rows import PackedRows, read_items
from daemon.training.schedule import checkpoint_interval
from daemon.training.train import make_plan, train

MakeJob = Callable[..., tuple[Job, Path]]
DEEP = {"micro_batch": 2, "accumulation": 2, "checkpointed_layers": "auto", "attention": "sdpa"}


def result_of(job_dir: Path) -> Result:
    return Result.model_validate_json((job_dir / "result.json").read_text())


def gib_for(job: Job, *, micro_batch: int, checkpointed_layers: int) -> float:
    """Return just the memory that one way of a job takes."""
    fit = make_fit(local_shape(job.settings), job.settings, "cpu", "sdpa", micro_batch, checkpointed_layers)
    return fit.memory.total / 2**30


def test_the_way_that_fits_is_chosen_and_told(make_job: MakeJob, recorder: Any) -> None:
    job, _ = make_job(1, **DEEP)
    job, job_dir = make_job(6, **DEEP, memory_gib=gib_for(job, micro_batch=1, checkpointed_layers=0))
    child = recorder()
    train(job, job_dir, child)
    told, result = child.of("plan"), result_of(job_dir)
    assert [(plan["micro_batch"], plan["accumulation"], plan["checkpointed_layers"]) for plan in told] == [(1, 4, 0)]
    assert set(told[0]["memory"]) >= {"weights", "adapters", "gradients", "optimizer", "activations", "logits"}
    assert (result.micro_batch, result.checkpointed_layers, result.num_out_of_memory) == (1, 0, 0)
    assert result.planned_bytes == told[0]["planned_bytes"] > 0
    assert result.peak_bytes >= child.of("step")[-1]["peak_bytes"] > 0


@pytest.mark.parametrize("verb", [train, range_test])
def test_a_base_that_no_adapter_can_be_trained_on_is_refused_before_its_rows_are_read(
    make_job: MakeJob, recorder: Any, tmp_path: Path, verb: Any
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_head": 12}')
    job, job_dir = make_job(2, fields={"base": str(tmp_path), "rates": {"steps": 3, "low": 1e-4, "high": 1.0}})
    child = recorder()
    with pytest.raises(Failed, match="is a model of type 'gpt2'") as caught:
        verb(job, job_dir, child)
    assert (caught.value.failure.reason, caught.value.failure.data_caused) == ("base_missing", False)
    assert child.of("phase") == []


def test_what_fits_nowhere_is_tried_in_the_smallest_way(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(2, **DEEP, memory_gib=0.001)
    child = recorder()
    train(job, job_dir, child)
    assert [plan["micro_batch"] for plan in child.of("plan")] == [1]


@pytest.mark.parametrize("layers", [0, "all"])
def test_after_out_of_memory_the_result_is_the_same_and_the_event_is_counted(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch, layers: Any
) -> None:
    settings = {"micro_batch": 4, "checkpointed_layers": layers}
    job, whole_dir = make_job(12, **settings)
    train(job, whole_dir, recorder())
    real, seen = trainer_module.sum_losses, []

    def scarce(*tensors: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        if len(seen) == 2:  # in the second step, once
            raise MemoryError("no room")
        return real(*tensors)

    monkeypatch.setattr(trainer_module, "sum_losses", scarce)
    job, job_dir = make_job(12, **settings)
    child = recorder()
    train(job, job_dir, child)
    expected, found = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (whole_dir, job_dir))
    assert [plan["micro_batch"] * plan["accumulation"] for plan in child.of("plan")] == [4, 4]
    assert [event["note"] for event in child.of("note")].count("out_of_memory") == 1
    assert (result_of(job_dir).num_out_of_memory, result_of(job_dir).micro_batch) == (1, 2)
    assert result_of(job_dir).steps == result_of(whole_dir).steps
    assert all((expected[name] - found[name]).abs().max() <= 1e-3 for name in expected)


def test_a_run_that_is_taken_up_again_goes_on_in_the_same_way(make_job: MakeJob, recorder: Any) -> None:
    job, _ = make_job(1, **DEEP)
    job, job_dir = make_job(12, **DEEP, memory_gib=gib_for(job, micro_batch=1, checkpointed_layers=0))
    with pytest.raises(Stopped):
        train(job, job_dir, recorder(lambda event: event["event"] == "step" and event["step"] == 1))
    roomy = job.model_copy(update={"settings": job.settings.model_copy(update={"memory_gib": None})})
    child = recorder()
    train(roomy, job_dir, child)
    assert [plan["micro_batch"] for plan in child.of("plan")] == [1]


def test_a_range_test_works_in_a_way_that_fits(make_job: MakeJob, recorder: Any) -> None:
    rates = {"rates": {"steps": 2, "low": 1e-4, "high": 1e-3}}
    job, job_dir = make_job(2, **DEEP, memory_gib=0.001, fields=rates)
    child = recorder()
    range_test(job, job_dir, child)
    assert [(plan["micro_batch"], plan["accumulation"]) for plan in child.of("plan")] == [(1, 4)]
    assert [event["step"] for event in child.of("step")] == [1, 2]


@pytest.mark.parametrize(
    ("run_s", "last_s", "expected"),
    [(3000, 25, 600), (7200, 25, 2500), (7200, 2, 600), (7200, 0, 600)],
)
def test_checkpoints_take_a_hundredth_of_a_long_run_at_most(run_s: float, last_s: float, expected: float) -> None:
    assert checkpoint_interval(600, last_s=last_s, run_s=run_s) == expected


@pytest.mark.parametrize(("share", "expected"), [(0.03, 1), (0.5, 2), (0.0, 0)])
def test_a_short_run_warms_up_too(make_job: MakeJob, share: float, expected: int) -> None:
    job, job_dir = make_job(8, micro_batch=1, accumulation=1, warmup_share=share)
    rows, _ = make_rows(read_items(job_dir / MEMBERS), load_base_tokenizer(job), job, Child(lambda _: None))
    plan = make_plan(job, PackedRows(rows.rows[:4]), 1, flat=False)
    assert (plan.num_steps, plan.warmup_steps) == (4, expected)
