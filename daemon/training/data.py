"""From job files to batches: items are read and verified, samples packed into rows, rows collated."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer
from torch.utils.data import Dataset

from daemon.config import SampleSettings
from daemon.job import Item
from daemon.samples import NoRoom, Sample, build_all, pack
from daemon.training.child import Failed
from daemon.training.failures import blaming

Batch = dict[str, Any]
Row = list[Sample]
_BATCH = 64  # items whose samples are built together
ATTENTION_KEYS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")


def read_items(path: Path) -> Iterator[Item]:
    """Yield the items of a job file in its order; raise Failed(disk) where it is not what was written."""
    return (item for item, _ in read_items_from(path, 0))


def read_items_from(path: Path, offset: int) -> Iterator[tuple[Item, int]]:
    """Yield the items that begin at a byte or later, each with the byte at which it ends; raise as `read_items`."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            place = f"{path}: the line at byte {offset}"
            try:
                item = Item.model_validate_json(line)
            except ValidationError as error:
                # Not its words: they quote the line.
                raise Failed("disk", f"{place} is damaged, no item can be read from it") from error
            if sha256(item.content.encode()).hexdigest() != item.sha256:
                raise Failed("disk", f"{place}, item {item.item_id}, differs from its SHA-256")
            offset += len(line)
            yield item, offset


def name_of(item: Item | Sample) -> str:
    """Return how a failure names an item."""
    return f"item {item.item_id} ({item.path})"


def names_of(rows: Sequence[Row]) -> list[str]:
    """Return the names of the items in packed rows, each once."""
    return list(dict.fromkeys(name_of(sample) for row in rows for sample in row))


def build_samples_of(
    items: Iterable[Item],
    tokenizer: Tokenizer,
    settings: SampleSettings,
    *,
    seed: int | None,
    on_drop: Callable[[str], None] | None = None,
) -> Iterator[Sample]:
    """Yield the samples of many items, as `build_all` does.

    Raises:
        Failed: naming the item that raised something, which is data-caused with a seed, for then it is to be learned.
    """
    pending = iter(items)
    while batch := list(islice(pending, _BATCH)):
        try:
            with blaming([name_of(item) for item in batch], claimed=seed is not None), _settings_at_fault():
                samples = list(build_all(batch, tokenizer, settings, seed=seed, on_drop=on_drop))
        except Failed as failed:
            if failed.failure.reason == "exception" and len(batch) > 1:
                for item in batch:  # alone, the one at fault raises it again, with its own name
                    list(build_samples_of([item], tokenizer, settings, seed=seed))
            raise
        yield from samples


@contextlib.contextmanager
def _settings_at_fault() -> Iterator[None]:
    try:
        yield
    except NoRoom as error:
        raise Failed("exception", str(error)) from error


class Rows(Protocol):
    """Rows to train on, all in memory or read as they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Row: ...
    def density(self, capacity: int) -> float: ...  # noqa: D102


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


def fill_up(rows: Rows, num_rows: int) -> Rows:
    """Return the rows with empty ones behind them, so that every process takes part in the last step."""
    missing = num_rows - len(rows)
    return PackedRows([*map(rows.__getitem__, range(len(rows))), *[[]] * missing]) if missing else rows


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
