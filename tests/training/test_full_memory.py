"""The planner's bytes for a training of all weights against those that are really there."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from daemon.config import TrainingSettings
from daemon.full_memory import FullShape, estimate_full, full_activation_bytes
from daemon.memory import Pass
from daemon.samples import train_tokenizer
from daemon.training.architectures import make_model
from daemon.training.optimizer import full_optimizer
from daemon.training.passes import checkpoint_layers
from tests.training.conftest import MICRO, write_code
from tests.training.test_memory import LiveBytes, measure_saved, run_forward

NUM_LAYERS = 3
SIZES: dict[str, Any] = MICRO | {"hidden_size": 256, "num_layers": NUM_LAYERS, "intermediate_size": 384}


@cache
def make(kind: str) -> tuple[Any, TrainingSettings]:
    settings = TrainingSettings(**SIZES)
    tokenizer = train_tokenizer([write_code(k) for k in range(20)], settings.vocabulary)
    return make_model(settings, tokenizer, kind=kind), settings


def shape_of(kind: Any, settings: TrainingSettings) -> FullShape:
    return FullShape.of_settings(settings, kind)


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16"])
@pytest.mark.parametrize("layers", [0, 2, 3])
def test_what_is_kept_for_the_backward_pass_is_foreseen(kind: str, arithmetic: str, layers: int) -> None:
    model, settings = make(kind)
    settings = settings.model_copy(update={"compute_dtype": arithmetic})
    checkpoint_layers(model, layers)
    one_pass = Pass(2, 96, layers, "sdpa")
    saved = measure_saved(model, settings, one_pass)
    assert full_activation_bytes(shape_of(kind, settings), settings, one_pass) == pytest.approx(saved, rel=0.02)


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
@pytest.mark.parametrize("layers", [0, 2, 3])
def test_the_peak_of_a_pass_over_all_weights_is_foreseen(kind: str, layers: int) -> None:
    model, settings = make(kind)
    checkpoint_layers(model, layers)
    one_pass = Pass(3, 192, layers, "sdpa")
    planned = estimate_full(shape_of(kind, settings), settings, "cpu", one_pass)
    assert planned.weights == planned.gradients == sum(parameter.numel() * 4 for parameter in model.parameters())
    run_forward(model, settings, Pass(1, 64, 0, "sdpa")).backward()  # from now on the gradients are there
    gradients = [parameter.grad for parameter in model.parameters()]
    with LiveBytes([*model.parameters(), *model.buffers(), *gradients]) as live:
        run_forward(model, settings, one_pass).backward()
    assert live.peak <= planned.activations + max(planned.logits, planned.backward) <= 1.2 * live.peak


@pytest.mark.parametrize("arithmetic", ["float32", "float16"])
def test_the_step_of_the_optimizer_is_foreseen(arithmetic: str) -> None:
    model, settings = make("qwen2")
    settings = settings.model_copy(update={"compute_dtype": arithmetic})
    is_fused = full_optimizer(settings) == "adamw_torch_fused"
    # As on a GPU, where torch takes all weights at once unless it is told otherwise.
    optimizer = torch.optim.AdamW(model.parameters(), fused=is_fused, foreach=not is_fused)
    run_forward(model, settings, Pass(1, 64, 0, "sdpa")).backward()
    optimizer.step()
    there = [tensor for state in optimizer.state.values() for tensor in state.values()]
    with LiveBytes([*model.parameters(), *(weight.grad for weight in model.parameters()), *there]) as live:
        optimizer.step()
    planned = estimate_full(shape_of("qwen2", settings), settings, "cuda", Pass(1, 8, NUM_LAYERS, "varlen"))
    beside = planned.activations + max(planned.logits, planned.backward)
    assert live.peak <= beside
    assert (beside >= planned.weights) == (arithmetic == "float16")


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_the_shape_of_a_base_that_is_trained_on_is_read_from_its_config(kind: str, tmp_path: Path) -> None:
    model, settings = make(kind)
    model.config.save_pretrained(tmp_path)
    assert FullShape.from_config(tmp_path / "config.json") == shape_of(kind, settings)
