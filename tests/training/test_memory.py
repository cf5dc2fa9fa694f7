"""The planner's bytes against those that are really there: what torch saves for the backward pass, and every tensor."""

import weakref
from functools import cache
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from bitsandbytes.optim import AdamW8bit
from torch import distributed
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, Qwen2Config

from daemon.config import TrainingSettings
from daemon.job import Job
from daemon.memory import Pass, activation_bytes, estimate_memory
from daemon.shapes import Shape
from daemon.training.attention import SDPA, choose_attention
from daemon.training.base import load_base
from daemon.training.child import Child
from daemon.training.fp8 import Fp8Linear
from daemon.training.lora import attach_adapter
from daemon.training.loss import sum_losses
from daemon.training.model import compute_dtype, head, hidden_at_targets
from daemon.training.passes import checkpoint_layers
from daemon.training.ranks import share_gradients

SHAPE = Shape(4, 128, 4, 2, 32, 384, 512, tied=True)


@cache
def make_adapted(
    compute_dtype_name: str, quantisation: str, rank: int, attention: str = "sdpa"
) -> tuple[Any, TrainingSettings]:
    """Return a model of SHAPE with an adapter, as a child loads it; `documents` is the attention of one on a CPU."""
    settings = TrainingSettings(
        compute_dtype=compute_dtype_name, quantisation=quantisation, lora_rank=rank, lora_alpha=rank
    )
    dtype = compute_dtype(settings)
    kernel = SDPA if attention == "sdpa" else choose_attention("auto", "cpu", dtype, Child(lambda _: None))
    config = Qwen2Config(
        vocab_size=SHAPE.vocabulary,
        hidden_size=SHAPE.hidden,
        intermediate_size=SHAPE.intermediate,
        num_hidden_layers=SHAPE.num_layers,
        num_attention_heads=SHAPE.num_heads,
        num_key_value_heads=SHAPE.num_kv_heads,
        tie_word_embeddings=SHAPE.tied,
        dtype=dtype,
    )
    with TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        job = Job(line="t", run=1, kind="adapter", seed=1, settings=settings, device="cpu", base=folder)
        return attach_adapter(load_base(job, kernel), job), settings


def run_forward(model: Any, settings: TrainingSettings, one_pass: Pass) -> torch.Tensor:
    """Return the loss of packed documents of uneven lengths, every token a target."""
    rows, width = one_pass.micro_batch, one_pass.sequence_tokens
    ends = [0, width // 3, width // 2, width]
    positions = torch.cat([torch.arange(end - start) for start, end in pairwise(ends)]).repeat(rows, 1)
    ids = torch.randint(0, SHAPE.vocabulary, (rows, width), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids, "position_ids": positions, "target_index": torch.arange(rows * width)}
    if one_pass.attention == "documents":
        starts = [row * width + start for row in range(rows) for start in ends[:-1]]
        borders = torch.tensor([*starts, rows * width], dtype=torch.int32)
        batch = {name: tensor.view(1, -1) for name, tensor in batch.items()}
        batch |= {"target_index": torch.arange(rows * width), "cu_seq_lens_q": borders, "cu_seq_lens_k": borders}
    hidden = hidden_at_targets(model, batch, compute_dtype(settings))
    return sum_losses(hidden, head(model), ids.flatten())


def measure_saved(model: Any, settings: TrainingSettings, one_pass: Pass) -> int:
    """Return the bytes of all storages that are saved for the backward pass, those of parameters and buffers not."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run_forward(model, settings, one_pass)
    return sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize("layers", [0, 1, 3, 4])
@pytest.mark.parametrize(("micro_batch", "sequence_tokens"), [(1, 128), (1, 320), (3, 192)])
@pytest.mark.parametrize(
    ("arithmetic", "quantisation", "rank", "attention"),
    [
        ("float32", "nf4", 8, "sdpa"),
        ("float32", "none", 64, "sdpa"),
        ("bfloat16", "nf4", 16, "sdpa"),
        ("bfloat16", "nf4", 128, "sdpa"),
        ("bfloat16", "none", 32, "sdpa"),
        ("float32", "nf4", 8, "documents"),
        ("bfloat16", "none", 32, "documents"),
    ],
)
def test_what_is_kept_for_the_backward_pass_is_foreseen(
    arithmetic: str, quantisation: str, rank: int, attention: str, micro_batch: int, sequence_tokens: int, layers: int
) -> None:
    model, settings = make_adapted(arithmetic, quantisation, rank, attention)
    one_pass = Pass(micro_batch, sequence_tokens, layers, attention)
    checkpoint_layers(model, layers)

    assert activation_bytes(SHAPE, settings, one_pass) == pytest.approx(
        measure_saved(model, settings, one_pass), rel=0.01
    )


@pytest.mark.parametrize(
    ("arithmetic", "quantisation", "rank"),
    [
        ("float32", "nf4", 8),
        ("bfloat16", "nf4", 64),
        ("bfloat16", "fp8", 64),
        ("bfloat16", "none", 64),
        ("float32", "none", 128),
    ],
)
def test_weights_adapters_gradients_and_optimizer_are_foreseen(arithmetic: str, quantisation: str, rank: int) -> None:
    model, settings = make_adapted(arithmetic, quantisation, rank)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = AdamW8bit(trained, lr=1e-4)
    run_forward(model, settings, Pass(1, 64, 0, "sdpa")).backward()
    optimizer.step()
    states = [value for state in optimizer.state.values() for name, value in state.items() if name in STATES]

    planned = estimate_memory(SHAPE, settings, "cpu", Pass(1, 64, 0, "sdpa"))

    assert planned.weights == pytest.approx(num_bytes(frozen_tensors(model)), rel=0.01)
    assert planned.adapters == num_bytes(trained)
    assert planned.gradients == num_bytes([parameter.grad for parameter in trained])
    assert planned.optimizer == num_bytes(states)


class LiveBytes(TorchDispatchMode):
    """Follow the bytes of all storages that are made while it is entered; those that were there before do not count."""

    def __init__(self, before: list[torch.Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in before}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and (key := tensor.untyped_storage()._cdata) not in self.known:
                self.known.add(key)
                self.now += tensor.untyped_storage().nbytes()
                weakref.finalize(tensor.untyped_storage(), self._forget, key, tensor.untyped_storage().nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _forget(self, key: int, num_bytes: int) -> None:
        self.known.remove(key)
        self.now -= num_bytes


@pytest.mark.parametrize("layers", [0, 2, 4])
@pytest.mark.parametrize(
    ("arithmetic", "quantisation", "attention", "micro_batch", "sequence_tokens"),
    [
        ("float32", "nf4", "sdpa", 4, 256),
        ("bfloat16", "nf4", "sdpa", 8, 128),
        ("bfloat16", "none", "sdpa", 4, 256),
        ("float32", "nf4", "documents", 4, 256),
    ],
)
def test_the_peak_of_a_pass_is_foreseen(
    arithmetic: str, quantisation: str, attention: str, micro_batch: int, sequence_tokens: int, layers: int
) -> None:
    model, settings = make_adapted(arithmetic, quantisation, 16, attention)
    one_pass = Pass(micro_batch, sequence_tokens, layers, attention)
    checkpoint_layers(model, layers)
    run_forward(model, settings, Pass(1, 64, 0, attention)).backward()  # from now on the gradients are there
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    with LiveBytes([*model.parameters(), *model.buffers(), *frozen_tensors(model), *gradients]) as live:
        run_forward(model, settings, one_pass).backward()

    planned = estimate_memory(SHAPE, settings, "cpu", one_pass)

    assert planned.activations + max(planned.logits, planned.backward) == pytest.approx(live.peak, rel=0.05)


@pytest.mark.filterwarnings("ignore:.*broadcast_buffers:FutureWarning")
def test_where_several_devices_add_up_their_gradients_is_foreseen() -> None:
    model, settings = make_adapted("float32", "none", 64)
    of_two = settings.model_copy(update={"num_devices": 2})
    planned = estimate_memory(SHAPE, of_two, "cpu", Pass(1, 64, 0, "sdpa"))
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with LiveBytes([*model.parameters(), *model.buffers()]) as live:
            _shared = share_gradients(model, lambda *_: torch.zeros(()))
            assert live.now == planned.buckets
    finally:
        distributed.destroy_process_group()


STATES = {"state1", "state2", "absmax1", "absmax2"}


def frozen_tensors(model: Any) -> list[torch.Tensor]:
    """Return the base's parameters, with the scales and tables of the quantised ones."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    states = [state for parameter in frozen if (state := getattr(parameter, "quant_state", None)) is not None]
    scales = [
        tensor
        for state in states
        for tensor in (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
    ]
    rows = [module.scale for module in model.modules() if isinstance(module, Fp8Linear)]
    return [*frozen, *scales, *rows]


def num_bytes(tensors: list[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
