"""From job files to batches: items are read and verified, samples packed into rows, rows collated."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from daemon.job import Item
from daemon.samples import Sample, pack
from daemon.training.child import Failed

Batch = dict[str, Any]
Row = list[Sample]
ATTENTION_KEYS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


def read_items(path: Path) -> Iterator[Item]:
    """Yield the items of a job file in its order; raise Failed(data) where one is not what was claimed."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            item = Item.model_validate_json(line)
            if sha256(item.content.encode()).hexdigest() != item.sha256:
                raise Failed("data", f"{path.name}: item {item.item_id} differs from its SHA-256", data_caused=True)
            yield item


@dataclass(frozen=True, slots=True)
class PackedRows(Dataset[Row]):
    """Rows of whole samples, each row at most the sequence length."""

    rows: list[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    @property
    def num_tokens(self) -> int:
        """Real tokens of all rows."""
        return sum(len(sample.input_ids) for row in self.rows for sample in row)

    def density(self, capacity: int) -> float:
        """Return the share of the rows' places that hold a real token."""
        return self.num_tokens / max(1, len(self.rows) * capacity)


def pack_rows(samples: Sequence[Sample], capacity: int, *, seed: int | None = None) -> PackedRows:
    """Pack samples into rows; shuffle the rows where a seed is given."""
    packed = pack([len(sample.input_ids) for sample in samples], capacity)
    if seed is not None:
        np.random.default_rng(seed).shuffle(packed)
    return PackedRows([[samples[index] for index in row] for row in packed])


def collate(rows: Sequence[Row], *, flat: bool) -> Batch:
    """Make one batch of packed rows.

    Returns:
        input_ids, position_ids: [B, T], or [1, S] when flat; positions restart at 0 with each sample, and padding is
            a sample of its own in each place, so that nothing attends across a border.
        target_index, targets, sample_index: [N]; the flat place before each completion token, the token, and the
            sample (counted over the batch) it belongs to. Prompt tokens have no target.
        cu_seq_lens_*, max_length_*: when flat, what the variable-length kernels need, so that no layer has to ask
            the device for it.
    """
    samples = [sample for row in rows for sample in row]
    lengths = np.array([len(sample.input_ids) for sample in samples])
    starts = _starts(rows, lengths, flat=flat)
    width = int(lengths.sum()) if flat else max(sum(len(sample.input_ids) for sample in row) for row in rows)
    shape = (1, width) if flat else (len(rows), width)
    input_ids, position_ids = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    places, targets, owners = [], [], []
    for index, (sample, start) in enumerate(zip(samples, starts, strict=True)):
        num, first = len(sample.input_ids), max(1, sample.prompt_tokens)
        input_ids.flat[start : start + num] = sample.input_ids
        position_ids.flat[start : start + num] = np.arange(num)
        places.append(np.arange(start + first - 1, start + num - 1))
        targets.append(sample.input_ids[first:].astype(np.int64))
        owners.append(np.full(num - first, index))
    batch: Batch = {
        "input_ids": torch.from_numpy(input_ids),
        "position_ids": torch.from_numpy(position_ids),
        "target_index": torch.from_numpy(np.concatenate(places)),
        "targets": torch.from_numpy(np.concatenate(targets)),
        "sample_index": torch.from_numpy(np.concatenate(owners)),
        "num_tokens": int(lengths.sum()),
    }
    return batch | _boundaries(lengths) if flat else batch


def _starts(rows: Sequence[Row], lengths: np.ndarray, *, flat: bool) -> np.ndarray:
    """Return the flat place at which each sample begins."""
    if flat:
        return np.concatenate([[0], np.cumsum(lengths)[:-1]])
    row_lengths = [[len(sample.input_ids) for sample in row] for row in rows]
    width = max(map(sum, row_lengths))
    return np.concatenate([number * width + np.cumsum([0, *row[:-1]]) for number, row in enumerate(row_lengths)])


def _boundaries(lengths: np.ndarray) -> Batch:
    borders = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    longest = int(lengths.max())
    return {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders, "max_length_q": longest, "max_length_k": longest}
