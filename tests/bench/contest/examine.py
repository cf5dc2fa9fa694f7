"""After the contest: what the contestants have learned, and what a step of ours does.

- `losses`: of each contestant's adapter, over the same held-out samples, nats per completion token.
- `flops_ratio`: what a step of ours executes, over what its model needs.
- `leak`: the largest difference of a logit between a document in a packed row and the same document alone, fp32.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from daemon.job import MEMBERS, Job
from daemon.samples import Sample
from daemon.shapes import Shape, local_shape
from daemon.training.attention import Attention, choose_attention
from daemon.training.base import load_base
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Child
from daemon.training.data import collate
from daemon.training.evaluate import using
from daemon.training.lora import attach_adapter, load_adapters
from daemon.training.loss import sum_losses, token_losses
from daemon.training.material import make_rows
from daemon.training.model import head, hidden_at_targets, prepare_device
from daemon.training.rows import PackedRows, build_samples_of, pack_rows, read_items
from tests.bench.contest.flops import FORMULAS
from tests.bench.contest.stage import HELD_OUT, OURS, read_job

COUNTED = 4  # micro-batches
PACKED = 3  # the shortest documents, in one row


def examine(stage: Path, names: Sequence[str]) -> dict[str, Any]:
    """Measure what the contestants have left behind, and our step."""
    job = read_job(stage)
    prepare_device(job)
    rows, _ = make_rows(read_items(stage / OURS / MEMBERS), load_base_tokenizer(job), job, Child(lambda _: None))
    attention = choose_attention(job.settings.attention, job.device, torch.float32, Child(lambda _: None))
    return {
        "losses": measure_losses(job, stage, names, attention),
        "flops_ratio": count_step(job, rows, attention),
        "leak": measure_leak(job, rows, attention),
    }


def measure_losses(job: Job, stage: Path, names: Sequence[str], attention: Attention) -> dict[str, float]:
    """Return the mean loss of a completion's tokens by contestant, and of the base without an adapter."""
    samples = list(
        build_samples_of(read_items(stage / HELD_OUT), load_base_tokenizer(job), job.settings, seed=job.seed)
    )
    packed = pack_rows(samples, job.settings.sequence_tokens)
    model = load_adapters(load_base(job, attention), {name: stage / name / "adapter" for name in names})
    losses = {}
    for name in (None, *names):
        with using(model, name), torch.no_grad():
            losses[name or "base"] = torch.cat([_losses(model, row, attention) for row in packed.rows]).mean().item()
    return losses


def _losses(model: Any, row: list[Sample], attention: Attention) -> Tensor:
    batch = collate([row], flat=attention.flat)
    return token_losses(hidden_at_targets(model, batch, torch.float32), head(model), batch["targets"])


def count_step(job: Job, rows: PackedRows, attention: Attention) -> float:
    """Count the operations of a few micro-batches, forward and backward, over those that their real tokens need."""
    model, shape, size = (
        attach_adapter(load_base(job, attention), job),
        local_shape(job.settings),
        job.settings.micro_batch,
    )
    executed = needed = 0.0
    for start in range(0, min(COUNTED * size, len(rows)), size):
        micro_batch = rows.rows[start : start + size]
        batch = collate(micro_batch, flat=attention.flat)
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            sum_losses(hidden_at_targets(model, batch, torch.float32), head(model), batch["targets"]).backward()
        executed += counter.get_total_flops()
        lengths = [len(sample.input_ids) for row in micro_batch for sample in row]
        needed += needed_flops(shape, job.settings.lora_rank, lengths, len(batch["targets"]))
    return round(executed / needed, 4)


def needed_flops(shape: Shape, rank: int, lengths: list[int], num_targets: int) -> float:
    """Return the operations that training an adapter on these documents needs; the head's, of the tokens to predict.

    Attention counts as torch's counter does: the whole square of a document, and in the backward pass its scores again.
    """
    num_tokens = sum(lengths)
    linear = num_tokens * (4 * shape.num_linear + 6 * shape.num_lora(rank)) + num_targets * 4 * shape.num_head
    attention = (4 + 10) * sum(length**2 for length in lengths) * shape.query * shape.num_layers
    return linear + attention


@torch.no_grad()
def measure_leak(job: Job, rows: PackedRows, attention: Attention) -> float:
    """Compare the logits of every document of a row of several with those it has alone."""
    row = sorted((sample for row in rows.rows for sample in row), key=lambda sample: len(sample.input_ids))[:PACKED]
    model = load_base(job, attention)
    together = _logits(model, row, attention).split(
        [max(0, len(sample.input_ids) - max(1, sample.prompt_tokens)) for sample in row]
    )
    alone = [_logits(model, [sample], attention) for sample in row]
    return max((one - other).abs().max().item() for one, other in zip(together, alone, strict=True))


def _logits(model: Any, row: list[Sample], attention: Attention) -> Tensor:
    return hidden_at_targets(model, collate([row], flat=attention.flat), torch.float32) @ head(model).T
