"""Cross-entropy over the head in chunks, so that no [tokens, vocabulary] tensor of a whole batch ever exists."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 512  # rows of logits that exist at once: all of 16,384 x 152k would be 10 GB


class _ChunkedLoss(torch.autograd.Function):
    """Sum of the losses; the gradients are made in the forward pass, while the probabilities are there anyway."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        to_hidden = torch.empty_like(hidden)
        to_head = torch.zeros_like(head) if ctx.needs_input_grad[1] else None
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, start + CHUNK)
            logits = (hidden[rows] @ head.T).float()
            wanted = targets[rows, None]
            norm = logits.logsumexp(-1, keepdim=True)
            total += (norm - logits.gather(1, wanted)).sum()
            logits.sub_(norm).exp_()  # now probabilities
            logits.scatter_add_(1, wanted, logits.new_full(wanted.shape, -1.0))
            errors = logits.to(head.dtype)
            torch.mm(errors, head, out=to_hidden[rows])
            if to_head is not None:
                to_head.addmm_(errors.T, hidden[rows])
        ctx.save_for_backward(to_hidden, to_head)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor, Tensor | None, None]:
        to_hidden, to_head = ctx.saved_tensors
        scale = outputs[0]
        return (
            to_hidden * scale.to(to_hidden.dtype),
            None if to_head is None else to_head * scale.to(to_head.dtype),
            None,
        )


def sum_losses(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Return Σ −ln p(target) in fp32.

    Args:
        hidden: [N, H], only the positions that have a target.
        head: [V, H]; a frozen one costs no gradient.
        targets: [N] token ids.
    """
    return _ChunkedLoss.apply(hidden.to(head.dtype), head, targets)  # type: ignore[no-any-return, no-untyped-call]


@torch.no_grad()
def token_losses(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Return −ln p(target) of each of the N positions, fp32."""
    losses = [
        functional.cross_entropy((rows.to(head.dtype) @ head.T).float(), wanted, reduction="none")
        for rows, wanted in zip(torch.split(hidden, CHUNK), torch.split(targets, CHUNK), strict=True)
    ]
    return torch.cat(losses) if losses else torch.zeros(0, device=hidden.device)
