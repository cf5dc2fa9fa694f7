"""The chunked loss is the plain one, in value and gradient."""

import pytest
import torch
from torch.nn import functional

from daemon.training.loss import CHUNK, sum_losses, token_losses

NUM, WIDTH, VOCABULARY = 2 * CHUNK + 7, 32, 97


def make_case(*, trained_head: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(NUM, WIDTH, dtype=torch.float64).float().requires_grad_()
    head = torch.randn(VOCABULARY, WIDTH).requires_grad_(trained_head)
    return hidden, head, torch.randint(VOCABULARY, (NUM,))


@pytest.mark.parametrize("trained_head", [False, True])
def test_chunked_loss_and_its_gradients_equal_torchs(trained_head: bool) -> None:
    hidden, head, targets = make_case(trained_head=trained_head)
    functional.cross_entropy(hidden @ head.T, targets, reduction="sum").div(NUM).backward()
    expected = [tensor.grad for tensor in (hidden, head)]
    hidden.grad = head.grad = None
    loss = sum_losses(hidden, head, targets) / NUM
    loss.backward()
    torch.testing.assert_close(loss, functional.cross_entropy(hidden @ head.T, targets), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(hidden.grad, expected[0], rtol=0, atol=1e-6)
    if trained_head:
        torch.testing.assert_close(head.grad, expected[1], rtol=0, atol=1e-6)
    else:
        assert head.grad is None


def test_token_losses_are_those_of_each_position() -> None:
    hidden, head, targets = make_case(trained_head=False)
    expected = functional.cross_entropy(hidden @ head.T, targets, reduction="none")
    torch.testing.assert_close(token_losses(hidden, head, targets), expected.detach(), rtol=1e-5, atol=1e-5)


def test_nothing_to_predict_is_no_loss() -> None:
    hidden, head, targets = make_case(trained_head=False)
    assert len(token_losses(hidden[:0], head, targets[:0])) == 0
    assert sum_losses(hidden[:0], head, targets[:0]).item() == 0
