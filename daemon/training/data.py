"""From rows to batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from daemon.training.rows import Row

Batch = dict[str, Any]
ATTENTION_KEYS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


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
    lengths = np.array([len(sample.input_ids) for sample in samples], np.int64)
    starts = _starts(rows, lengths, flat=flat)
    width = int(lengths.sum()) if flat else max(sum(len(sample.input_ids) for sample in row) for row in rows)
    width = max(1, width)  # nothing but empty rows: a token that is not learned
    shape = (1, width) if flat else (len(rows), width)
    input_ids, position_ids = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    places, targets, owners = ([np.zeros(0, np.int64)] for _ in range(3))
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
    return batch | _boundaries(lengths if len(lengths) else np.ones(1, np.int64)) if flat else batch


def _starts(rows: Sequence[Row], lengths: np.ndarray, *, flat: bool) -> np.ndarray:
    """Return the flat place at which each sample begins."""
    if flat:
        return np.concatenate([[0], np.cumsum(lengths)])[:-1]
    row_lengths = [[len(sample.input_ids) for sample in row] for row in rows]
    width = max(map(sum, row_lengths))
    return np.concatenate([number * width + np.cumsum([0, *row])[:-1] for number, row in enumerate(row_lengths)])


def _boundaries(lengths: np.ndarray) -> Batch:
    borders = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    longest = int(lengths.max())
    return {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders, "max_length_q": longest, "max_length_k": longest}
