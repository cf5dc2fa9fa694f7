"""Rows for a training that reads more text than memory holds: tokenized and packed a buffer at a time."""

from bisect import bisect_right
from collections.abc import Container
from operator import attrgetter
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer
from torch.utils.data import Dataset

from daemon.config import SampleSettings
from daemon.samples import plain_samples
from daemon.training.child import Failed
from daemon.training.failures import blaming
from daemon.training.rows import Row, name_of, pack_rows, read_items_from

BUFFER_ROWS = 512  # packed and shuffled together: enough to fill rows to 98 %, few enough to hold


class Place(BaseModel):
    """Where a buffer begins: with which row, in which pass over the file, at which byte; and what came before it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    row: int = 0
    epoch: int = 0
    offset: int = 0
    documents: int = 0
    samples: int = 0
    tokens: int = 0


class StreamedRows(Dataset[Row]):
    """Packed rows of plain text from a file of items, read from its beginning again where it ends.

    Row `k` is the same one whenever and by whom it is asked for: it depends on the file, the seed and the settings
    alone. To ask for rows in their order costs one pass; to go on in the middle takes the place that a checkpoint kept.
    """

    def __init__(
        self,
        path: Path,
        tokenizer: Tokenizer,
        settings: SampleSettings,
        *,
        seed: int,
        num_rows: int,
        held_out: Container[str] = (),
    ) -> None:
        """Read `path`, but for the items whose content's SHA-256 is among those that are held out."""
        self._path, self._tokenizer, self._settings, self._seed = path, tokenizer, settings, seed
        self._num_rows, self._held_out = num_rows, held_out
        self._places = [Place()]  # of the buffers seen, in their order
        self._next = Place()  # where the buffer in memory ends
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, index: int) -> Row:
        if not self._next.row - len(self._rows) <= index < self._next.row:
            self._fill(self.place_of(index))
        while index >= self._next.row:
            self._places.append(self._next)
            self._fill(self._next)
        return self._rows[index - self._next.row]

    def place_of(self, index: int) -> Place:
        """Return the last place at or before a row: what to go on from."""
        return self._places[bisect_right(self._places, index, key=attrgetter("row")) - 1]

    def go_on_from(self, place: Place) -> None:
        """Take what `place_of` said in another process."""
        self._places, self._next, self._rows = [place], place, []

    def density(self, capacity: int) -> float:
        """Return the share of the places in all rows read so far that hold a token."""
        return self._next.tokens / max(1, self._next.row * capacity)

    @property
    def place(self) -> Place:
        """What has been read so far."""
        return self._next

    def _fill(self, start: Place) -> None:
        """Read, tokenize, pack and shuffle one buffer."""
        capacity, samples, documents, offset = self._settings.sequence_tokens, [], 0, start.offset
        num_tokens = 0
        for item, offset in read_items_from(self._path, start.offset):  # noqa: B007 - the last one counts
            if item.sha256 in self._held_out:
                continue
            with blaming([name_of(item)]):
                pieces = plain_samples(item, self._tokenizer, self._settings)
            samples += pieces
            documents += 1
            num_tokens += sum(len(piece.input_ids) for piece in pieces)
            if num_tokens >= BUFFER_ROWS * capacity:
                break
        else:
            offset = 0
            if not samples and not start.offset:
                raise Failed("data", f"{self._path.name} gives no text to learn", data_caused=True)
        self._rows = pack_rows(samples, capacity).rows
        np.random.default_rng([self._seed, start.epoch, start.offset]).shuffle(self._rows)
        self._next = Place(
            row=start.row + len(self._rows),
            epoch=start.epoch + (offset == 0),
            offset=offset,
            documents=start.documents + documents,
            samples=start.samples + len(samples),
            tokens=start.tokens + num_tokens,
        )
