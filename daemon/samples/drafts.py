"""What one sample is to be made of, still as text, and the sample that comes of it."""

from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np

from daemon.job import Item
from daemon.samples.frames import Frames
from daemon.samples.places import Places
from daemon.samples.tokens import Ids

Kind = Literal["continuation", "fim", "plain"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One document to train or to measure.

    The end marker is one of the completion's tokens: it is trained, and its bits count in bits per byte, for to know
    where the text ends is part of the task. It has no bytes: `completion_bytes` are the UTF-8 bytes of the text alone.
    """

    input_ids: Ids
    """Token ids, uint32 [T]."""
    prompt_tokens: int
    """Tokens at the start that are read, not learned; 0 for plain text."""
    completion_bytes: int
    """UTF-8 bytes of the completion's text."""
    item_id: int
    path: str
    """Of the item, to name it by."""
    language: str
    unit: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Draft:
    """The three parts of a sample; `after` is empty in a continuation."""

    item: Item
    kind: Kind
    before: str
    completion: str
    after: str = ""

    def texts(self, frames: Frames) -> tuple[str, str, str]:
        """Return the texts to encode."""
        head = frames.request(self.item.language) if self.kind == "continuation" else ""
        return head + self.before, self.completion, self.after


def draft_continuation(item: Item, places: Places, span: tuple[int, int], prefix_share: float) -> Draft | None:
    """Split a piece after the statement nearest to its share; None for a piece that is a single line."""
    start, end = span
    cut = places.split_near(start, end, start + round((end - start) * prefix_share))
    if cut is None:
        return None
    return Draft(item, "continuation", item.content[start:cut], item.content[cut:end])


def draft_fim(item: Item, places: Places, span: tuple[int, int], rng: Random) -> Draft | None:
    """Leave out a whole syntax node, at most half of the piece; None where there is none.

    A node's weight is its length: else most holes would be a name in a call.
    """
    start, end = span
    holes = places.holes_within(start, end, (end - start) // 2)
    if not holes:
        return None
    first, last = rng.choices(holes, [last - first for first, last in holes])[0]
    text = item.content
    return Draft(item, "fim", text[start:first], text[first:last], text[last:end])


def finish(draft: Draft, parts: tuple[Ids, Ids, Ids], frames: Frames, sequence_tokens: int) -> Sample | None:
    """Put the encoded parts into their frame; context that is too long loses its far end, the completion nothing.

    Returns:
        None where the completion alone is too long: a piece that was cut for the shorter frame of a hole, and has none.
    """
    before, completion, after = parts
    if draft.kind == "continuation":
        end, num_kept = frames.continuation_end(), frames.num_request(draft.item.language)
        num_framed = len(frames.continuation_prompt(before[:0]))
    else:
        end, num_kept, num_framed = frames.fim_end(), 0, len(frames.fim_prompt(before[:0], after[:0]))
    num_over = len(before) + len(completion) + len(after) + num_framed + len(end) - sequence_tokens
    if num_over > 0:
        num_dropped = min(num_over, len(before) - num_kept)
        before = np.concatenate([before[:num_kept], before[num_kept + num_dropped :]])
        num_over -= num_dropped
        if num_over > len(after):
            return None
        after = after[: len(after) - num_over]
    prompt = frames.continuation_prompt(before) if draft.kind == "continuation" else frames.fim_prompt(before, after)
    return Sample(
        input_ids=np.concatenate([prompt, completion, end]),
        prompt_tokens=len(prompt),
        completion_bytes=len(draft.completion.encode()),
        item_id=draft.item.item_id,
        path=draft.item.path,
        language=draft.item.language,
        unit=draft.item.unit,
        kind=draft.kind,
    )
