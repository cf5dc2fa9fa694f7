"""The element-wise parts of a decoder layer, in plain torch and without autograd: what comes of them, and gradients.

What they take and give has one dtype. The norm computes in fp32 and rounds once.
"""

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return weight·x/rms(x), [..., H], and 1/rms(x) in fp32, [..., 1]."""
    inverse = x.float().square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (x * inverse).mul_(weight).to(x.dtype), inverse


def rms_norm_back(grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """Return the gradient of x from that of the norm; the weight is frozen and has none."""
    exact, to_x = x.float(), grad.float() * weight
    along = (to_x * exact).mean(-1, keepdim=True).mul_(inverse).mul_(inverse)
    return to_x.addcmul_(exact, along, value=-1).mul_(inverse).to(x.dtype)


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries and keys, [B, heads, T, D], turned by the angles of their positions, [B, T, D]."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return _turn(query, cos, sin), _turn(key, cos, sin)


def rotate_back(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of queries and keys from those of the turned ones: turned back."""
    return rotate(query, key, cos, -sin)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = x * cos
    turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return turned


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate)·up, [T, I]."""
    return functional.silu(gate).mul_(up)


def swiglu_back(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of gate and up from that of silu(gate)·up, and that product; overwrite what is given."""
    opened = functional.silu(gate)
    product = opened * up
    to_up = opened.mul_(grad)
    to_gate = torch.ops.aten.silu_backward.grad_input(grad.mul_(up), gate, grad_input=grad)
    return to_gate, to_up, product
