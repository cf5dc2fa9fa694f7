"""The validation subsample of a run: what its completion tokens cost the model as it is now."""

import math
from collections.abc import Callable
from typing import Any

import torch

from daemon.training.child import Child
from daemon.training.data import Batch, collate
from daemon.training.loss import token_losses
from daemon.training.model import head, hidden_at_targets
from daemon.training.progress import Plan
from daemon.training.ranks import add_up, num_ranks, rank
from daemon.training.rows import PackedRows


@torch.no_grad()
def measure(
    model: Any, rows: PackedRows, plan: Plan, prepare: Callable[[Batch], Batch], child: Child
) -> tuple[float, float]:
    """Return nats per completion token, and bits per byte; raise Stopped where the parent asks meanwhile.

    Of several processes each measures a part.

    Args:
        model: with the adapters that are to count.
        rows: the subsample.
        plan: of the run; its micro-batch is what fits into memory.
        prepare: puts a batch on the model's device.
        child: asked before each batch whether to stop.
    """
    nats, num_tokens, num_bytes = 0.0, 0.0, 0.0
    for start in range(rank() * plan.micro_batch, len(rows), num_ranks() * plan.micro_batch):
        child.check_stop()
        packed = rows.rows[start : start + plan.micro_batch]
        batch = prepare(collate(packed, flat=plan.flat))
        hidden = hidden_at_targets(model, batch, plan.dtype)
        nats += token_losses(hidden, head(model), batch["targets"]).sum(dtype=torch.float64).item()
        num_tokens += len(batch["targets"])
        num_bytes += sum(sample.completion_bytes for row in packed for sample in row)
    nats, num_tokens, num_bytes = add_up([nats, num_tokens, num_bytes], plan.device)
    return nats / max(1, num_tokens), nats / math.log(2) / max(1, num_bytes)
