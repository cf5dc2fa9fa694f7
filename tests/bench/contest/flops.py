"""How many operations the kernels take that torch's counter knows no formula for."""

import math
from typing import Any

import bitsandbytes  # noqa: F401 - its operators appear with it
import torch
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

from daemon.shapes import Shape

aten = torch.ops.aten


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


def _four_bit(activations: Any, _weight: Any, shape: Any, *_: Any, **__: Any) -> int:
    """Count a product with a 4-bit weight of that shape, [out, in]; making 16 or 32 bits of it is no product."""
    return 2 * math.prod(activations) * int(shape[0])


def _added(_total: Any, left: Any, right: Any, *_: Any, **__: Any) -> int:
    return 2 * int(left[0]) * int(left[1]) * int(right[1])


def model_flops(shape: Shape, rank: int, document_tokens: float) -> float:
    """Return the operations that training an adapter on one token needs: every token learned, nothing recomputed.

    The frozen base takes 2 per weight forward and 2 for the gradient of its input, the adapter 6, causal attention
    2 for each of a token's keys, of which there are half a document on average, forward and twice that backward.
    """
    attention = 2 * document_tokens * shape.query * shape.num_layers
    return 4 * (shape.num_linear + shape.num_head) + 6 * shape.num_lora(rank) + 3 * attention


FORMULAS = {
    aten.addmm_: _added,
    torch.ops.bitsandbytes.gemm_4bit: _four_bit,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
