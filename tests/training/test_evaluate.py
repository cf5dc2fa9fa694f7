"""Evaluation: bits of each item under each model, as a plain computation has them; and no trace left on the adapter."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from daemon.job import TEST, EvaluationResult, Job
from daemon.samples import evaluation_samples
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


def test_bits_are_those_of_a_plain_computation_under_each_model(make_job: MakeJob, recorder: Any) -> None:
    job, first_dir = make_job(8)
    train(job, first_dir, recorder())
    job, job_dir = make_job(8, fields={"incumbent": str(first_dir / "adapter")})
    train(job, job_dir, recorder())
    evaluate(job, job_dir, recorder())
    items = EvaluationResult.model_validate_json((job_dir / "evaluation.json").read_text()).items
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
