"""The element-wise parts of a decoder layer, without autograd: each gives what comes of it, or its inputs' gradients.

All compute in fp32 and round once, to the dtype of their input; what they take and give has no other.
"""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return weight·x/rms(x), [..., H], and 1/rms(x) in fp32, [..., 1]."""
    if x.is_cuda:
        return torch.ops.aten._fused_rms_norm(x, x.shape[-1:], weight, eps)  # type: ignore[no-any-return]  # noqa: SLF001
    inverse = x.float().square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (x * inverse).mul_(weight).to(x.dtype), inverse


def rms_norm_back(grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """Return the gradient of x from that of the norm; the weight is frozen and has none."""
    if x.is_cuda:
        gradients = torch.ops.aten._fused_rms_norm_backward(  # noqa: SLF001 - torch's own formula of rms_norm
            grad, x, x.shape[-1:], inverse, weight, [True, False]
        )
        return gradients[0]  # type: ignore[no-any-return]
    exact, to_x = x.float(), grad.float() * weight
    along = (to_x * exact).mean(-1, keepdim=True).mul_(inverse).mul_(inverse)
    return to_x.addcmul_(exact, along, value=-1).mul_(inverse).to(x.dtype)
