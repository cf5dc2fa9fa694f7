"""Packing keeps documents apart, in training and in evaluation, padded and flat."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from daemon.job import Job
from daemon.samples import Sample
from daemon.training.attention import SDPA, Attention, choose_attention, wrap_varlen
from daemon.training.base import load_base
from daemon.training.child import Failed
from daemon.training.data import collate
from daemon.training.lora import attach_adapter
from daemon.training.model import head, hidden_at_targets
from daemon.training.rows import PackedRows, pack_rows, read_items


def make_sample(length: int, prompt: int, seed: int) -> Sample:
    ids = np.random.default_rng(seed).integers(20, 500, length).astype(np.uint32)
    return Sample(ids, prompt, length, seed, "m.py", "Python", "u", "plain")


SAMPLES = [make_sample(length, prompt, length) for length, prompt in [(40, 0), (17, 9), (64, 30), (5, 4), (33, 1)]]


@pytest.mark.parametrize("attention", [SDPA, None], ids=["masked", "by document"])
@pytest.mark.parametrize("training", [True, False])
def test_packed_documents_do_not_see_each_other(
    make_job: Callable[..., tuple[Job, Path]], recorder: Any, training: bool, attention: Attention | None
) -> None:
    job, _ = make_job()
    attention = attention or choose_attention("auto", "cpu", torch.float32, recorder())
    model = attach_adapter(load_base(job, attention), job).train(training)
    rows = [[SAMPLES[0], SAMPLES[1], SAMPLES[2]], [SAMPLES[3], SAMPLES[4]]]
    packed = logits(model, rows, attention)
    alone = torch.cat([logits(model, [[sample]], attention) for row in rows for sample in row])
    assert (packed - alone).abs().max() <= 1e-5


def logits(model: Any, rows: list[list[Sample]], attention: Attention) -> Tensor:
    # The configuration of a base has the cache on where nobody said otherwise.
    model.config.use_cache = True
    hidden = hidden_at_targets(model, collate(rows, flat=attention.flat), torch.float32)
    return (hidden @ head(model).T).detach()


def test_flat_and_padded_batches_hold_the_same() -> None:
    rows = [SAMPLES[:3], SAMPLES[3:]]
    padded, flat = collate(rows, flat=False), collate(rows, flat=True)
    assert padded["num_tokens"] == flat["num_tokens"] == flat["input_ids"].numel() == 159
    for batch in (padded, flat):
        before, ids = batch["target_index"], batch["input_ids"].flatten()
        assert torch.equal(ids[before + 1], batch["targets"])
    for name in ("targets", "sample_index"):
        assert torch.equal(padded[name], flat[name])
    assert flat["cu_seq_lens_q"].tolist() == [0, 40, 57, 121, 126, 159]
    assert flat["cu_seq_lens_q"].dtype == torch.int32
    assert flat["max_length_q"] == 64


def test_only_completions_are_targets() -> None:
    batch = collate([[SAMPLES[1]]], flat=False)
    assert batch["targets"].tolist() == SAMPLES[1].input_ids[9:].tolist()


def test_rows_hold_every_sample_once() -> None:
    rows = pack_rows(SAMPLES, 64, seed=3)
    assert sorted(len(sample.input_ids) for row in rows.rows for sample in row) == [5, 17, 33, 40, 64]
    assert all(sum(len(sample.input_ids) for sample in row) <= 64 for row in rows.rows)
    assert rows.num_tokens == 159
    assert PackedRows([]).density(64) == 0


def test_an_item_that_changed_since_it_was_claimed_is_refused(make_job: Callable[..., tuple[Job, Path]]) -> None:
    _, job_dir = make_job()
    path = job_dir / "members.jsonl"
    path.write_text(path.read_text().replace("Module 105", "Module 10x"))
    with pytest.raises(Failed, match="item 105") as caught:
        list(read_items(path))
    assert caught.value.failure.reason == "disk"
    assert not caught.value.failure.data_caused


def attend_by_document(query: Tensor, key: Tensor, value: Tensor, borders: Tensor, *, scale: float | None) -> Tensor:
    """Reference for the kernels: [T, heads, D], causal within each document, all of one dtype."""
    assert query.dtype == key.dtype == value.dtype
    out = []
    for start, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        parts = [tensor[start:end].transpose(0, 1) for tensor in (query, key, value)]
        groups = query.shape[1] != key.shape[1]
        out.append(functional.scaled_dot_product_attention(*parts, is_causal=True, scale=scale, enable_gqa=groups))
    return torch.cat([part.transpose(0, 1) for part in out])


def torch_2_10(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, mq: int, mk: int, is_causal: bool = False) -> Tensor:  # fmt: skip # noqa: E501
    assert is_causal
    return attend_by_document(q, k, v, cu_q, scale=None)


def torch_2_11(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, mq: int, mk: int, *, scale: float | None = None, window_size: tuple[int, int] = (-1, -1)) -> Tensor:  # fmt: skip # noqa: E501
    assert window_size == (-1, 0)
    return attend_by_document(q, k, v, cu_q, scale=scale)


def torch_2_12(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, mq: int, mk: int, *, scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False) -> Tensor:  # fmt: skip # noqa: E501
    assert window_size == (-1, 0)
    assert enable_gqa
    return attend_by_document(q, k, v, cu_q, scale=scale)


@pytest.mark.parametrize("varlen", [torch_2_10, torch_2_11, torch_2_12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_signature_of_the_variable_length_kernel_is_served(
    varlen: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    batch = collate([SAMPLES[:2]], flat=True)
    query, key, value = (torch.randn(1, heads, 57, 16) for heads in (4, 2, 2))
    num_heads = []

    def watch(q: Tensor, k: Tensor, *others: Any, **options: Any) -> Tensor:
        num_heads.append((q.shape[1], k.shape[1]))
        return varlen(q, k, *others, **options)

    watch.__signature__ = inspect.signature(varlen)  # type: ignore[attr-defined]
    # Under autocast the rotary tables leave queries and keys in fp32; the values are what the kernel works in.
    out, _ = wrap_varlen(watch)(
        None, query, key, value.to(dtype), None, scaling=0.25, dropout=0.0,
        cu_seq_lens_q=batch["cu_seq_lens_q"], cu_seq_lens_k=batch["cu_seq_lens_k"],
        max_length_q=batch["max_length_q"], max_length_k=batch["max_length_k"],
    )  # fmt: skip
    flat = [tensor[0].transpose(0, 1).to(dtype) for tensor in (query, key, value)]
    expected = attend_by_document(*flat, batch["cu_seq_lens_q"], scale=0.25)
    torch.testing.assert_close(out[0], expected)
    assert num_heads == [(4, 2)]  # what is kept for the backward pass is no larger than need be
