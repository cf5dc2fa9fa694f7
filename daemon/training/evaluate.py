"""Verb `evaluate`: the test split under base, incumbent and candidate, item by item, on one loaded base."""

import contextlib
import math
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from daemon.files import write_json
from daemon.job import TEST, EvaluationResult, Item, ItemBits, Job
from daemon.samples import Sample
from daemon.training.attention import choose_attention
from daemon.training.base import load_base
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Child
from daemon.training.data import collate
from daemon.training.failures import means_out_of_memory
from daemon.training.lora import load_adapters
from daemon.training.loss import token_losses
from daemon.training.model import compute_dtype, give_memory_back, head, hidden_at_targets, prepare_device
from daemon.training.rows import Row, build_samples_of, choose_pieces, pack_rows, read_items


def evaluate(job: Job, job_dir: Path, child: Child) -> None:
    """Write evaluation.json."""
    started, settings = time.monotonic(), job.settings
    prepare_device(job)
    attention = choose_attention(settings.attention, job.device, compute_dtype(settings), child)
    child.phase("tokenize")
    tokenizer = load_base_tokenizer(job)
    items = list(read_items(job_dir / TEST))
    samples = choose_pieces(build_samples_of(items, tokenizer, settings, seed=None), settings.eval_pieces)
    child.phase("load")
    model = load_base(job, attention, child.note)
    adapters = {"candidate": job_dir / "adapter"}
    if job.incumbent is not None:
        adapters["incumbent"] = job.incumbent
    model = load_adapters(model, adapters)
    bits: dict[str, dict[int, float]] = {}
    for name in ("base", *adapters):
        child.phase(f"evaluate {name}")
        with using(model, None if name == "base" else name):
            bits[name] = sum_bits(model, samples, job, child, flat=attention.flat)
    result = EvaluationResult(items=collect(items, samples, bits), seconds=round(time.monotonic() - started, 3))
    write_json(job_dir / "evaluation.json", result.model_dump())


@contextlib.contextmanager
def using(model: Any, adapter: str | None) -> Any:
    """Make one adapter count, or none."""
    if adapter is None:
        with model.disable_adapter():
            yield
    else:
        model.set_adapter(adapter)
        yield


@torch.no_grad()
def sum_bits(model: Any, samples: list[Sample], job: Job, child: Child, *, flat: bool) -> dict[int, float]:
    """Return −Σ log2 p over the completion tokens of each item, by item id.

    Where memory runs out, half as many rows are taken at once from there on; the figures stay.
    """
    packed, num = pack_rows(samples, job.settings.sequence_tokens).rows, job.settings.micro_batch
    total: dict[int, float] = defaultdict(float)
    done = 0
    while done < len(packed):
        child.check_stop()
        rows = packed[done : done + num]
        try:
            nats = _measure_samples(model, rows, job, flat=flat)
        except Exception as error:
            if len(rows) == 1 or not means_out_of_memory(error):
                raise
            num, nats = len(rows) // 2, None
        if nats is None:  # the error is gone by now, and what it held
            give_memory_back(job.device)
            child.emit("note", note="out_of_memory", message=f"going on with {num} sequences per evaluation pass")
            continue
        for sample, value in zip((sample for row in rows for sample in row), nats, strict=True):
            total[sample.item_id] += value / math.log(2)
        done += len(rows)
        child.emit("progress", done=done, total=len(packed))
    return total


def _measure_samples(model: Any, rows: list[Row], job: Job, *, flat: bool) -> list[float]:
    """Return −Σ ln p over the completion tokens of each sample of some rows."""
    batch = {
        name: value.to(job.device) if isinstance(value, torch.Tensor) else value
        for name, value in collate(rows, flat=flat).items()
    }
    hidden = hidden_at_targets(model, batch, compute_dtype(job.settings))
    losses = token_losses(hidden, head(model), batch["targets"])
    nats = torch.zeros(sum(map(len, rows)), dtype=torch.float64, device=losses.device)
    return nats.index_add_(0, batch["sample_index"], losses.double()).tolist()


def collect(items: list[Item], samples: list[Sample], bits: dict[str, dict[int, float]]) -> list[ItemBits]:
    """Put together what each item's samples cost under each model; an item without a sample is left out."""
    num_bytes: dict[int, int] = defaultdict(int)
    num_tokens: dict[int, int] = defaultdict(int)
    for sample in samples:
        num_bytes[sample.item_id] += sample.completion_bytes
        num_tokens[sample.item_id] += len(sample.input_ids) - max(1, sample.prompt_tokens)
    return [
        ItemBits(
            item_id=item.item_id,
            unit=item.unit,
            language=item.language,
            num_bytes=num_bytes[item.item_id],
            num_tokens=num_tokens[item.item_id],
            bits={name: of_item[item.item_id] for name, of_item in bits.items()},
        )
        for item in items
        if num_tokens[item.item_id]
    ]
