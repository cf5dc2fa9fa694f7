"""From job files to rows: items are read and verified, samples built and packed. No torch here."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import ValidationError
from tokenizers import Tokenizer

from daemon.config import SampleSettings
from daemon.job import Item
from daemon.samples import NoRoom, Sample, build_all, pack
from daemon.training.child import Failed
from daemon.training.failures import blaming
from sourcecode.fingerprints import stable_share

Row = list[Sample]
_BATCH = 64  # items whose samples are built together


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


def choose_pieces(samples: Iterable[Sample], most: int) -> list[Sample]:
    """Return at most so many samples of each item, by hash: the same ones in every round."""
    by_item: dict[int, list[tuple[float, Sample]]] = defaultdict(list)
    for sample in samples:
        pieces = by_item[sample.item_id]
        pieces.append((stable_share(f"{sample.item_id}:{len(pieces)}"), sample))
    chosen = (sorted(pieces, key=lambda piece: piece[0])[:most] for pieces in by_item.values())
    return [sample for pieces in chosen for _, sample in pieces]


class Rows(Protocol):
    """Rows to train on, all in memory or read as they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Row: ...
    def density(self, capacity: int) -> float: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class PackedRows:
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
