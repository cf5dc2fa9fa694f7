"""What one round hands to the next: weights alone. The base stays as it is, and a consolidation begins there again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from daemon.files import digest_folder
from daemon.job import EvaluationResult, Job
from daemon.training.evaluate import evaluate
from daemon.training.train import train

MakeJob = Callable[..., tuple[Job, Path]]
SHORT_STEPS = {"micro_batch": 2, "warmup_share": 0.2}


def bits_of(job_dir: Path, model: str) -> list[float]:
    result = EvaluationResult.model_validate_json((job_dir / "evaluation.json").read_bytes())
    return [item.bits[model] for item in result.items]


def test_three_rounds_the_last_of_them_a_consolidation(make_job: MakeJob, recorder: Any, base: Path) -> None:
    before, children, folders = digest_folder(base), [], []
    for fields in ({}, {"incumbent": 0}, {"incumbent": 1, "fresh": True}):
        told = {**fields, "incumbent": str(folders[fields["incumbent"]] / "adapter")} if fields else {}
        job, job_dir = make_job(24, fields=told, **SHORT_STEPS)
        child = recorder()
        train(job, job_dir, child)
        evaluate(job, job_dir, child)
        children.append(child)
        folders.append(job_dir)
    # Each begins where it should: the second at the first's best, the third at the base again.
    starts = [child.of("eval")[0]["loss"] for child in children]
    assert starts[1] == pytest.approx(min(event["loss"] for event in children[0].of("eval")), abs=1e-6)
    assert starts[2] == starts[0]

    # The rate rises anew in each, to half the peak where an adapter is continued, and falls to a tenth of it.
    peak = job.settings.learning_rate
    for child, share in zip(children, (1.0, 0.5, 1.0), strict=True):
        rates = [event["lr"] for event in child.of("step")]
        assert rates[0] < max(rates) == pytest.approx(share * peak)
        assert rates[-1] == pytest.approx(0.1 * share * peak, rel=0.3)

    # Nothing but weights is handed on: no state of an optimizer.
    assert {path.name for path in (folders[0] / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    with safe_open(folders[1] / "adapter" / "adapter_model.safetensors", "pt") as weights:
        assert all("lora_" in name for name in weights.offset_keys())

    # The base has not moved by a bit, in memory or on disk, and the consolidation is judged against the incumbent.
    assert bits_of(folders[0], "base") == bits_of(folders[1], "base") == bits_of(folders[2], "base")
    assert bits_of(folders[2], "incumbent") == bits_of(folders[1], "candidate")
    assert digest_folder(base) == before
