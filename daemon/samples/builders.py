"""From items to samples: the same items, settings and seed give the same samples."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from random import Random

import numpy as np
from tokenizers import Tokenizer

from daemon.config import SampleSettings
from daemon.job import Item
from daemon.samples.drafts import Draft, Sample, draft_continuation, draft_fim, finish
from daemon.samples.frames import Frames
from daemon.samples.pieces import Cutter
from daemon.samples.places import Places
from daemon.samples.tokens import END_OF_TEXT, encode_texts, special_id

# Items encoded together: enough for all cores, few enough to keep little in memory.
_BATCH = 64


def build_samples(item: Item, tokenizer: Tokenizer, settings: SampleSettings, *, seed: int) -> list[Sample]:
    """Return the training samples of one item, of both kinds; the choice depends on the seed and the content alone.

    A file longer than a sample gives several, cut at syntax boundaries. A piece of a single line that has no whole
    syntax node to leave out gives none.
    """
    return list(build_all([item], tokenizer, settings, seed=seed))


def evaluation_samples(item: Item, tokenizer: Tokenizer, settings: SampleSettings) -> list[Sample]:
    """Return the samples that an item is measured on: the continuation of every piece, whatever the seed."""
    return list(build_all([item], tokenizer, settings, seed=None))


def build_all(
    items: Iterable[Item],
    tokenizer: Tokenizer,
    settings: SampleSettings,
    *,
    seed: int | None,
    on_progress: Callable[[int], None] | None = None,
    on_drop: Callable[[str], None] | None = None,
) -> Iterator[Sample]:
    """Yield the samples of many items, encoded in batches.

    The seed is that of the choice between the kinds and of the holes; None builds evaluation samples. `on_progress` is
    called with the number of items done; `on_drop` with the reason, for every piece that gives no sample.
    """
    frames, pending, num_done = Frames(tokenizer), iter(items), 0
    while batch := list(islice(pending, _BATCH)):
        yield from _build_batch(batch, frames, settings, seed, on_drop or _ignore)
        num_done += len(batch)
        if on_progress is not None:
            on_progress(num_done)


def plain_samples(item: Item, tokenizer: Tokenizer, settings: SampleSettings) -> list[Sample]:
    """Return an item as plain text for pre-training, every token learned, cut to length; <|endoftext|> is last."""
    ids = encode_texts(tokenizer, [item.content])[0]
    ids = np.append(ids, np.uint32(special_id(tokenizer, END_OF_TEXT)))
    num_bytes = len(item.content.encode())
    parts = [ids[start : start + settings.sequence_tokens] for start in range(0, len(ids), settings.sequence_tokens)]
    return [
        Sample(part, 0, num_bytes * len(part) // len(ids), item.item_id, item.path, item.language, item.unit, "plain")
        for part in parts
        if len(part) > 1
    ]


def _build_batch(
    items: Sequence[Item], frames: Frames, settings: SampleSettings, seed: int | None, on_drop: Callable[[str], None]
) -> Iterator[Sample]:
    encodings = frames.tokenizer.encode_batch([item.content for item in items], add_special_tokens=False)
    drafts = [
        draft
        for item, encoding in zip(items, encodings, strict=True)
        for draft in _draft_item(item, encoding.offsets, frames, settings, seed, on_drop)
    ]
    texts = [text for draft in drafts for text in draft.texts(frames)]
    parts = iter(encode_texts(frames.tokenizer, texts))
    for draft in drafts:
        sample = finish(draft, (next(parts), next(parts), next(parts)), frames, settings.sequence_tokens)
        if sample is None:
            on_drop("too long for the frame")
        else:
            yield sample


def _ignore(_reason: str) -> None:
    """Take a reason that nobody asked for."""


def _draft_item(
    item: Item,
    offsets: Sequence[tuple[int, int]],
    frames: Frames,
    settings: SampleSettings,
    seed: int | None,
    on_drop: Callable[[str], None],
) -> Iterator[Draft]:
    """Cut an item into pieces, and draft the sample of each; its kind is chosen first, for the frames differ in length.

    A piece that the chosen kind can make nothing of becomes one of the other kind, except in an evaluation. Its length
    stays: one cut for the shorter frame of a hole can be too long for the frame of a continuation, and is dropped.
    """
    places = Places(item.language, item.content)
    cutter = Cutter(places, offsets)
    rng = Random(f"{seed}:{item.sha256}")  # noqa: S311 - a choice, not a secret
    start = 0
    while start < len(item.content):
        is_fim = seed is not None and rng.random() < settings.fim_share
        room = frames.room(item.language, settings.sequence_tokens, fim=is_fim)
        end = cutter.next_piece(start, max_chars=settings.max_chars, max_tokens=room)
        draft = draft_fim(item, places, (start, end), rng) if is_fim else None
        draft = draft or draft_continuation(item, places, (start, end), settings.prefix_share)
        if draft is None and seed is not None:
            draft = draft_fim(item, places, (start, end), rng)
        if draft is None:
            on_drop("nowhere to split")
        else:
            yield draft
        start = end
