"""What a step computes: no more than the model needs, and the same numbers as yesterday."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch.utils.flop_counter import FlopCounterMode

from daemon.config import TrainingSettings
from daemon.job import Job
from daemon.shapes import Shape
from daemon.training.attention import choose_attention
from daemon.training.base import load_base
from daemon.training.data import collate
from daemon.training.lora import attach_adapter
from daemon.training.loss import sum_losses
from daemon.training.model import head, hidden_at_targets
from daemon.training.passes import checkpoint_layers
from daemon.training.pretrain import make_model, save_base
from daemon.training.train import train
from tests.training.conftest import MICRO
from tests.training.test_rows import make_sample

MakeJob = Callable[..., tuple[Job, Path]]


@pytest.fixture(scope="module")
def deep_base(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro base of six layers: of one, the first, the gradients of its input are not needed."""
    tokenizer, folder = Tokenizer.from_file(str(base / "tokenizer.json")), tmp_path_factory.mktemp("deep")
    save_base(make_model(TrainingSettings(**MICRO | {"num_layers": 6}), tokenizer), tokenizer, folder)
    return folder


def count_addmm(_sum: Any, left: tuple[int, int], right: tuple[int, int], **_: Any) -> int:
    return 2 * left[0] * left[1] * right[1]


@pytest.mark.parametrize(("recompute", "least", "most"), [(False, 0.95, 1.02), (True, 1.3, 1.45)])
def test_a_step_computes_hardly_more_than_the_model_needs(
    make_job: MakeJob, deep_base: Path, recorder: Any, recompute: bool, least: float, most: float
) -> None:
    job, _ = make_job(1, fields={"base": str(deep_base)})
    attention = choose_attention("auto", "cpu", torch.float32, recorder())
    model = attach_adapter(load_base(job, attention), job)
    checkpoint_layers(model, 6 if recompute else 0)
    batch = collate([[make_sample(200, 0, 1)], [make_sample(120, 0, 2), make_sample(100, 0, 3)]], flat=True)
    in_place = {torch.ops.aten.addmm_: count_addmm}  # which the counter knows only as addmm
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        hidden = hidden_at_targets(model, batch, torch.float32)
        sum_losses(hidden, head(model), batch["targets"]).backward()
    # The counter does not know what a CPU's attention computes: so that is left out of both.
    needed = Shape.from_config(deep_base / "config.json").lora_flops(job.settings.lora_rank, 0)
    assert least <= counter.get_total_flops() / (batch["num_tokens"] * needed) <= most


# A change of these is a change of what every user's next run gives: it needs a line in CHANGELOG.md that says why.
GOLDEN = [6.288989067077637, 6.264104843139648, 6.259179592132568, 6.2521538734436035, 6.267457008361816]


def test_the_losses_of_a_short_run_are_those_of_the_last_release(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(12, learning_rate=1e-3)
    child = recorder()
    train(job, job_dir, child)
    # Another CPU sums in another order: about 1e-7 of a loss, which so few steps at this rate make no more than 1e-5.
    losses = [event["loss"] for event in child.of("step")]
    assert losses == pytest.approx(GOLDEN, rel=1e-4)
