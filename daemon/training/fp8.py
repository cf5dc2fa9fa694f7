"""The frozen base in FP8: e4m3 weights with a scale for each row, unpacked to the arithmetic wherever they are used."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from daemon.training.child import Failed
from daemon.training.data import collate
from daemon.training.loss import token_losses
from daemon.training.model import Model, compute_dtype, decoder, head, hidden_at_targets
from daemon.training.rows import Row

LARGEST = 448.0  # of e4m3
MAX_DIFFERENCE = 0.003  # of the loss, relative to that of the unquantised weights
_NUM_ROWS = 4  # packed sequences that both are compared on


class Fp8Linear(nn.Linear):
    """A frozen linear layer whose weight is stored as the bytes of e4m3 values, [out, in], and a scale, [out, 1].

    Bytes, for whoever casts the floating-point tensors of a model would undo the storage. The scale is of the dtype
    that the weight was: unpacking rounds once, to that dtype, and needs no tensor of another.
    """

    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        weight = linear.weight.detach()
        scale = weight.abs().amax(1, keepdim=True).float() / LARGEST
        scale = scale.clamp_min(torch.finfo(weight.dtype).tiny).to(weight.dtype)
        # A scale that was rounded down would make the row's largest value more than e4m3 has: NaN.
        packed = (weight.float() / scale.float()).clamp_(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
        self.weight = nn.Parameter(packed.view(torch.uint8), requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def unpack(self, dtype: torch.dtype) -> Tensor:
        """Return the weight, [out, in]."""
        return self.weight.view(torch.float8_e4m3fn).to(dtype).mul_(self.scale.to(dtype))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return the projection of x, [..., in]; the unpacked weight is not kept for the backward pass."""
        product: Tensor = _Product.apply(input, self)  # type: ignore[no-untyped-call]
        return product


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Fp8Linear) -> Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return functional.linear(x, layer.unpack(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] @ ctx.layer.unpack(grads[0].dtype), None


@torch.no_grad()
def store_in_fp8(model: Any, job: Model, rows: Sequence[Row], *, flat: bool) -> str:
    """Bring a model from host memory to its device, the linear layers inside its blocks in FP8, one block at a time.

    With rows, both losses on the first few of them are compared, in two passes: in the first one each block is used
    unquantised and stored in FP8 as soon as it has been, so that the device never holds more than one whole block.

    Returns:
        Both losses, in words; nothing without rows.

    Raises:
        Failed: exception, where the losses differ by more than MAX_DIFFERENCE; it names both and what to set.
    """
    blocks = getattr(decoder(model), "layers", None)
    if blocks is None:
        raise Failed(
            "exception",
            f"quantisation=fp8 is for the Qwen2 family, and {job.base} is a {type(model).__name__}: set "
            "CODELUPE_QUANTISATION=none",
        )
    _move_all_but(blocks, model, job.device)
    if not rows:
        for block in blocks:
            _store(block.to(job.device))
        return ""
    rows = rows[:_NUM_ROWS]
    handles = [block.register_forward_pre_hook(lambda block, _: _bring(block, job.device)) for block in blocks]
    handles += [block.register_forward_hook(lambda block, *_: _store(block)) for block in blocks]
    plain = _mean_loss(model, job, rows, flat=flat)
    for handle in handles:
        handle.remove()
    return _compare(plain, _mean_loss(model, job, rows, flat=flat), len(rows))


def read_fp8(folder: Path, job: Model, implementation: str) -> tuple[Any, dict[str, list[str]]]:
    """Return what `store_in_fp8` made and was saved, on its device, and the `missing_keys` that the files lack."""
    config = AutoConfig.from_pretrained(folder, use_cache=False)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=compute_dtype(job.settings), attn_implementation=implementation
        )
        for block in decoder(model).layers:
            _store(block)
    for file in sorted(folder.glob("*.safetensors")):
        tensors = {name: tensor.to(job.device) for name, tensor in load_file(file).items()}
        model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    decoder(model).rotary_emb = type(decoder(model).rotary_emb)(config=config).to(job.device)  # in no file
    return model, {"missing_keys": [name for name, tensor in model.state_dict().items() if tensor.is_meta]}


def _move_all_but(blocks: nn.ModuleList, model: Any, device: str) -> None:
    """Move embeddings, last norm, rotary tables and head."""
    decoder(model).layers = nn.ModuleList()
    model.to(device)
    decoder(model).layers = blocks


def _bring(block: nn.Module, device: str) -> None:
    block.to(device)


def _store(block: nn.Module) -> None:
    for parent in list(block.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, Fp8Linear(child))


def _mean_loss(model: Any, job: Model, rows: Sequence[Row], *, flat: bool) -> float:
    batch = {
        name: value.to(job.device) if isinstance(value, Tensor) else value
        for name, value in collate(rows, flat=flat).items()
    }
    hidden = hidden_at_targets(model, batch, compute_dtype(job.settings))
    return token_losses(hidden, head(model), batch["targets"]).double().mean().item()


def _compare(plain: float, stored: float, num: int) -> str:
    words = f"the base's loss on {num} sequences is {stored:.4f} in FP8 and {plain:.4f} unquantised"
    if not abs(stored - plain) <= MAX_DIFFERENCE * plain:  # NaN is no number to go on with
        raise Failed(
            "exception",
            f"{words}: they differ by more than {MAX_DIFFERENCE:.1%}, so this base's weights do not suit FP8 with a "
            "scale for each row: set CODELUPE_QUANTISATION=none, or nf4 where that does not fit",
        )
    return words
