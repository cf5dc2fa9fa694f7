"""PiSSA: an adapter begins along the principal directions of the base's weights, and is a plain LoRA all the same."""

from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from torch import Tensor

from daemon.training.child import Failed

# Of the randomised decomposition, which takes a small part of the whole one's time: directions beyond those wanted, and
# iterations, that make these exact where the singular values fall.
_SPARE, _ITERATIONS = 64, 8


@torch.no_grad()
def begin_principal(model: Any, folder: Path, rank: int) -> None:
    """Begin an adapter of rank 2r along the r largest singular directions of the unquantised weights in `folder`.

    Its first half is W's best approximation of rank r, its second half takes that away again and stays as it is. So
    the model begins as the base, the base stays that of every version, and what is trained is at each moment a plain
    LoRA on it, to be published as it is: PiSSA's own adapter, converted by `subtract_mutated_init`.
    """
    files = {name: file for file in sorted(folder.glob("*.safetensors")) for name in _names_in(file)}
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            key = name.removeprefix("base_model.model.") + ".weight"
            if key not in files:
                raise Failed("base_missing", f"the weights in {folder} have no {key}, which adapter_init='pissa' needs")
            with safe_open(files[key], "pt") as file:
                weight = file.get_tensor(key)
            if min(weight.shape) < rank:
                raise Failed("exception", f"{key} has fewer than {rank} directions: set a smaller CODELUPE_LORA_RANK")
            _begin_layer(layer, weight, rank)


def _names_in(file: Path) -> list[str]:
    with safe_open(file, "pt") as opened:
        return list(opened.keys())


def _begin_layer(layer: Any, weight: Tensor, rank: int) -> None:
    """Set A [2r, in] and B [out, 2r] of a layer; keep their second halves out of the training."""
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    most = min(rank + _SPARE, *weight.shape)
    u, s, v = torch.svd_lowrank(weight.to(down.device, torch.float32), most, niter=_ITERATIONS)
    root = s[:rank].sqrt()
    first_down = root[:, None] * v[:, :rank].T
    first_up = u[:, :rank] * root / layer.scaling["default"]
    down.copy_(torch.cat([first_down, first_down]))
    up.copy_(torch.cat([first_up, -first_up], 1))
    learned = (torch.arange(2 * rank, device=down.device) < rank).to(down.dtype)
    # Without a gradient AdamW's moments stay 0, and with them the weights; weight decay is refused beside it.
    down.register_hook(lambda gradient: gradient * learned[:, None])
    up.register_hook(lambda gradient: gradient * learned)
