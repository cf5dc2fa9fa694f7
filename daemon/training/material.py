"""What a run trains on, and what it is judged on meanwhile. No torch here: `ahead.py` makes it beside the imports."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path

from tokenizers import Tokenizer

from daemon.config import SampleSettings, TrainingSettings
from daemon.job import MEMBERS, VALIDATION, Item, Job
from daemon.samples import Sample
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Child, Failed
from daemon.training.rows import PackedRows, build_samples_of, choose_pieces, pack_rows, read_items

EVALS_PER_RUN = 8  # at least so many, however short the run
VALIDATION_PIECES = 2  # of one file: else a single long one could be all that is measured


@dataclass(frozen=True, slots=True)
class Material:
    """The rows of a run."""

    rows: PackedRows
    """Of every epoch, in the order in which they are learned."""
    num_samples: int
    validation: PackedRows | None
    """The held-out samples of the evaluations in between; None where there are none."""


def make_material(job: Job, job_dir: Path, child: Child) -> Material:
    """Read, tokenize and pack the items of a job.

    Raises:
        Failed: naming the item, the file or the base at fault.
    """
    settings, tokenizer = job.settings, load_base_tokenizer(job)
    rows, num_samples = make_rows(read_items(job_dir / MEMBERS), tokenizer, job, child)
    num_steps = count_steps(len(rows), settings)
    num_evals = 1 + math.ceil(num_steps / eval_interval(num_steps, settings))
    held_out = read_items(job_dir / VALIDATION)
    return Material(rows, num_samples, choose_validation(held_out, tokenizer, settings, rows.num_tokens, num_evals))


def count_steps(num_rows: int, settings: TrainingSettings) -> int:
    """Return how many optimizer steps so many rows are."""
    return math.ceil(num_rows / (settings.micro_batch * settings.accumulation))


def eval_interval(num_steps: int, settings: TrainingSettings) -> int:
    """Return after how many steps a run of so many is evaluated."""
    return max(1, min(settings.eval_interval_steps, num_steps // EVALS_PER_RUN))


def make_rows(items: Iterable[Item], tokenizer: Tokenizer, job: Job, child: Child) -> tuple[PackedRows, int]:
    """Build and pack the samples of every epoch; the epochs follow one another, each in its own order.

    The pieces that give no sample are counted, and a note says how many and why.
    """
    settings, members = job.settings, list(items)
    dropped: Counter[str] = Counter()
    rows, num_samples = [], 0
    for seed in range(job.seed, job.seed + settings.epochs):
        samples = list(
            build_samples_of(members, tokenizer, settings, seed=seed, on_drop=lambda reason: dropped.update([reason]))
        )
        num_samples += len(samples)
        rows += pack_rows(samples, settings.sequence_tokens, seed=seed).rows
    if dropped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))
        child.emit("note", note="pieces_dropped", message=f"{reasons}; {num_samples:,} samples were made")
    if not rows:
        raise Failed("data", f"the {len(members)} claimed rows give no sample", data_caused=True)
    return PackedRows(rows), num_samples


def choose_validation(
    items: Iterable[Item], tokenizer: Tokenizer, settings: TrainingSettings, train_tokens: int, num_evals: int
) -> PackedRows | None:
    """Take held-out samples, by hash, until all evaluations together cost the share that the settings allow.

    A file gives at most VALIDATION_PIECES of its samples, these by hash too.

    A trained token costs a forward and a backward pass, an evaluated one a forward pass. What is computed again counts
    for nothing: another way to make the passes must not change what a run is judged on.
    """
    by_hash = sorted(items, key=lambda item: item.sha256)
    samples = build_samples_of(by_hash, tokenizer, settings, seed=None)
    return take_within(settings.eval_share * train_tokens * 2 / num_evals, samples, settings)


def take_within(budget: float, samples: Iterable[Sample], settings: SampleSettings) -> PackedRows | None:
    """Pack at most VALIDATION_PIECES samples of each item, as many tokens as the budget allows; None: there is none.

    One sample is taken whatever it costs. Those of an item follow one another.
    """
    chosen: list[Sample] = []
    of_items = (choose_pieces(pieces, VALIDATION_PIECES) for _, pieces in groupby(samples, attrgetter("item_id")))
    for sample in chain.from_iterable(of_items):
        if chosen and budget < len(sample.input_ids):
            break
        budget -= len(sample.input_ids)
        chosen.append(sample)
    return pack_rows(chosen, settings.sequence_tokens) if chosen else None
