"""rsLoRA and PiSSA: what they change, and that what is published is a plain adapter on the plain base."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.optim import AdamW8bit
from peft.tuners.lora import LoraLayer
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from daemon.config import DaemonSettings
from daemon.job import Job
from daemon.training.base import load_base
from daemon.training.child import Failed
from daemon.training.lora import attach_adapter, load_adapters, save_adapter
from daemon.training.train import train

MakeJob = Callable[..., tuple[Job, Path]]
RANK, ALPHA = 8, 16
LAYER = "model.layers.0.mlp.up_proj"


def layers_of(model: Any) -> dict[str, Any]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}


def halves_of(model: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Return copies of what stays: the second halves of A and B."""
    return {
        name: (layer.lora_A["default"].weight[RANK:].clone(), layer.lora_B["default"].weight[:, RANK:].clone())
        for name, layer in layers_of(model).items()
    }


@torch.no_grad()
def answer(model: Any) -> Tensor:
    """Return the logits of some tokens."""
    tokens = torch.arange(96).reshape(2, 48) * 5 % 500
    logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits


def learn(model: Any) -> None:
    """Take a few steps that change it much."""
    optimizer = AdamW8bit([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.0)
    tokens = torch.arange(96).reshape(2, 48) * 7 % 500
    for _ in range(4):
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_rslora_divides_by_the_root_of_the_rank_in_training_and_afterwards(make_job: MakeJob, tmp_path: Path) -> None:
    job, _ = make_job(1, rslora=True)
    trained = attach_adapter(load_base(job), job)
    assert {layer.scaling["default"] for layer in layers_of(trained).values()} == {ALPHA / math.sqrt(RANK)}
    learn(trained)
    save_adapter(trained, job, tmp_path)
    published = load_adapters(load_base(job), {"candidate": tmp_path})
    torch.testing.assert_close(answer(published), answer(trained), rtol=1e-5, atol=1e-5)


def test_pissa_begins_as_the_base_along_the_largest_directions_of_its_unquantised_weights(
    make_job: MakeJob, base: Path
) -> None:
    job, _ = make_job(1, adapter_init="pissa")
    plain = answer(load_base(job))
    begun = attach_adapter(load_base(job), job)
    torch.testing.assert_close(answer(begun), plain, rtol=1e-5, atol=1e-5)
    u, s, v = torch.linalg.svd(load_file(base / "model.safetensors")[f"{LAYER}.weight"])
    layer = layers_of(begun)[f"base_model.model.{LAYER}"]
    first = layer.lora_B["default"].weight[:, :RANK] @ layer.lora_A["default"].weight[:RANK]
    best = u[:, :RANK] @ torch.diag(s[:RANK]) @ v[:RANK]
    assert (layer.scaling["default"] * first.detach() - best).norm() < 0.01 * best.norm()


def test_what_pissa_publishes_is_a_plain_adapter_that_gives_what_was_trained(make_job: MakeJob, tmp_path: Path) -> None:
    job, _ = make_job(1, adapter_init="pissa")
    trained = attach_adapter(load_base(job), job)
    before, plain = halves_of(trained), answer(trained)
    learn(trained)
    after = halves_of(trained)
    assert all(torch.equal(one, other) for name in before for one, other in zip(before[name], after[name], strict=True))
    assert (answer(trained) - plain).abs().max() > 0.1
    save_adapter(trained, job, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2 * RANK, 2 * ALPHA)
    assert config["init_lora_weights"] is True
    assert not config["use_rslora"]
    published = load_adapters(load_base(job), {"candidate": tmp_path})
    torch.testing.assert_close(answer(published), answer(trained), rtol=1e-5, atol=1e-5)


def test_pissa_continues_no_adapter_but_what_it_made_is_continued(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(4, adapter_init="pissa")
    train(job, job_dir, recorder())
    fields = {"incumbent": job_dir / "adapter"}
    refused, refused_dir = make_job(4, fields=fields, adapter_init="pissa")
    with pytest.raises(Failed, match=r"cannot continue .*: set CODELUPE_ADAPTER_INIT=default"):
        train(refused, refused_dir, recorder())
    continued, continued_dir = make_job(4, fields=fields)
    train(continued, continued_dir, recorder())
    assert json.loads((continued_dir / "adapter" / "adapter_config.json").read_text())["r"] == 2 * RANK


@pytest.mark.parametrize("other", [{"rslora": True}, {"weight_decay": 0.1}], ids=["rsLoRA", "weight decay"])
def test_pissa_is_refused_beside_what_it_cannot_be_combined_with(other: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"adapter_init='pissa'.*" + next(iter(other))):
        DaemonSettings(adapter_init="pissa", **other)
