"""The attention kernel: the best one that gives the right answer on this device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from daemon.config import TrainingSettings
from daemon.samples import load_tokenizer
from daemon.training.architectures import make_model
from daemon.training.attention import Attention, attend_documents, choose_attention, choose_working, wrap_varlen
from daemon.training.child import Failed
from daemon.training.data import collate
from daemon.training.model import hidden_at_targets
from tests.training.conftest import MICRO
from tests.training.test_rows import SAMPLES, attend_by_document, torch_2_10, torch_2_11, torch_2_12

Attend = Callable[..., tuple[Tensor, None]]


def across_documents(
    _module: Any, query: Tensor, key: Tensor, value: Tensor, _mask: None, **_: Any
) -> tuple[Any, None]:
    out = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.125, enable_gqa=True)
    return out.transpose(1, 2), None


def wrong_backward(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    out, _ = attend_documents(*args, **kwargs)
    return out + (out.detach() - out) / 2, None


def not_built(*_: Any, **__: Any) -> tuple[Tensor, None]:
    raise RuntimeError("no kernel image is available for execution on the device")


def a_kernel(name: str, attend: Attend) -> Attention:
    AttentionInterface.register(f"test_{name}", attend)
    return Attention(name, f"test_{name}", flat=True)


@pytest.mark.parametrize(
    ("broken", "said"),
    [(across_documents, "output differs"), (wrong_backward, "gradient differs"), (not_built, "no kernel image")],
)
def test_a_kernel_that_fails_or_differs_is_passed_over_with_a_note(broken: Attend, said: str, recorder: Any) -> None:
    child, kernels = recorder(), [a_kernel("first", broken), a_kernel("second", attend_documents)]
    assert choose_working(kernels, "cpu", torch.float32, child) is kernels[1]
    assert [(event["note"], said in event["message"]) for event in child.of("note")] == [
        ("attention_passed_over", True)
    ]
    with pytest.raises(Failed, match=said) as caught:
        choose_working(kernels[:1], "cpu", torch.float32, recorder())
    assert caught.value.failure.reason == "device"


@pytest.mark.parametrize("varlen", [torch_2_10, torch_2_11, torch_2_12])
def test_the_variable_length_kernel_passes_with_every_signature(varlen: Callable[..., Tensor], recorder: Any) -> None:
    kernel = a_kernel("varlen", wrap_varlen(varlen))
    assert choose_working([kernel], "cpu", torch.float32, recorder()) is kernel


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_the_kernel_gets_tensors_of_one_type_though_the_weights_are_in_another(base: Path, kind: str) -> None:
    seen = set()

    def strict(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, *_: Any, scale: float | None = None, **__: Any) -> Tensor:
        seen.add((q.dtype, k.dtype, v.dtype))
        return attend_by_document(q, k, v, cu_q, scale=scale)

    kernel = a_kernel("strict", wrap_varlen(strict))
    model = make_model(TrainingSettings(**MICRO), load_tokenizer(str(base)), kernel.implementation, kind)
    hidden_at_targets(model, collate([SAMPLES[:3]], flat=True), torch.bfloat16)
    assert seen == {(torch.bfloat16,) * 3}


def test_bfloat16_passes(recorder: Any) -> None:
    assert choose_attention("sdpa", "cpu", torch.bfloat16, recorder()).flat


def test_one_that_is_not_there_is_refused_with_those_that_are(recorder: Any) -> None:
    with pytest.raises(Failed, match="use one of sdpa"):
        choose_attention("flash", "cpu", torch.float32, recorder())
