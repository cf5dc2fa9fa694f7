"""Evaluation: bits of each item under each model, as a plain computation has them; and no trace left on the adapter."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from daemon.job import TEST, EvaluationResult, ItemBits, Job
from daemon.samples import evaluation_samples
from daemon.training import evaluate as evaluate_module
from daemon.training.base import load_base
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Failed
from daemon.training.evaluate import evaluate
from daemon.training.lora import load_adapters
from daemon.training.rows import read_items
from daemon.training.train import train

MakeJob = Callable[..., tuple[Job, Path]]


def test_an_adapter_of_pickled_weights_is_refused(make_job: MakeJob, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(Failed, match=r"has no adapter_model\.safetensors"):
        load_adapters(load_base(make_job(1)[0]), {"candidate": tmp_path})


def bits_of(model: Any, job: Job, job_dir: Path) -> dict[int, float]:
    """One sample at a time through the whole model."""
    tokenizer, bits = load_base_tokenizer(job), {}
    for item in read_items(job_dir / TEST):
        bits[item.item_id] = 0.0
        for sample in evaluation_samples(item, tokenizer, job.settings):
            ids = torch.from_numpy(sample.input_ids.astype("int64"))
            with torch.no_grad():
                scores = model(input_ids=ids[None], use_cache=False).logits[0].log_softmax(-1)
            wanted = torch.arange(sample.prompt_tokens, len(ids))
            bits[item.item_id] -= scores[wanted - 1, ids[wanted]].sum().item() / math.log(2)
    return bits


def items_of(job_dir: Path) -> list[ItemBits]:
    return EvaluationResult.model_validate_json((job_dir / "evaluation.json").read_text()).items


def test_bits_are_those_of_a_plain_computation_under_each_model(make_job: MakeJob, recorder: Any) -> None:
    job, first_dir = make_job(8)
    train(job, first_dir, recorder())
    job, job_dir = make_job(8, fields={"incumbent": str(first_dir / "adapter")})
    train(job, job_dir, recorder())
    evaluate(job, job_dir, recorder())
    items = items_of(job_dir)
    expected = {"base": bits_of(load_base(job), job, job_dir)}
    for name, folder in [("candidate", job_dir / "adapter"), ("incumbent", first_dir / "adapter")]:
        expected[name] = bits_of(load_adapters(load_base(job), {name: folder}), job, job_dir)
    assert [item.item_id for item in items] == [300, 301, 302, 303, 304]
    for item in items:
        assert item.bits == pytest.approx({name: bits[item.item_id] for name, bits in expected.items()}, rel=1e-5)
        assert item.num_tokens > 0
        assert item.num_bytes > 0
    total = {name: sum(item.bits[name] for item in items) for name in expected}
    assert total["candidate"] < total["incumbent"] < total["base"]


def hold_rows(monkeypatch: pytest.MonkeyPatch, num_rows: float, job: Job) -> None:
    """Let memory suffice for so many rows at once."""
    real = evaluate_module.hidden_at_targets

    def scarce(model: Any, batch: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
        if batch["input_ids"].numel() > num_rows * job.settings.sequence_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(model, batch, dtype)

    monkeypatch.setattr(evaluate_module, "hidden_at_targets", scarce)


def test_out_of_memory_halves_the_rows_of_a_pass_and_no_figure_changes(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, job_dir = make_job(8)
    train(job, job_dir, recorder())
    evaluate(job, job_dir, recorder())
    whole = items_of(job_dir)
    hold_rows(monkeypatch, 1, job)
    child = recorder()
    evaluate(job, job_dir, child)
    told = [event["message"].split()[3] for event in child.of("note") if event["note"] == "out_of_memory"]
    assert told == ["2", "1"] * 2  # for the base, and for the candidate
    halved = items_of(job_dir)
    assert [item.item_id for item in halved] == [item.item_id for item in whole]
    for one, other in zip(halved, whole, strict=True):
        assert one.bits == pytest.approx(other.bits, rel=1e-6)


def test_too_little_memory_for_one_row_fails_the_evaluation(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, job_dir = make_job(8)
    train(job, job_dir, recorder())
    hold_rows(monkeypatch, 0.1, job)
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(job, job_dir, recorder())
