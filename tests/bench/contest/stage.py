"""The stage: one folder with the corpus, tokenizer, base and samples that all contestants of a shape share.

base/  job/  samples.json  held_out.jsonl      made here
NAME/adapter/                                  what a contestant has trained
"""

import json
import sysconfig
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from daemon.job import JOB, MEMBERS, VALIDATION, Item, Job
from daemon.samples import build_all, load_tokenizer, train_tokenizer
from daemon.training.pretrain import make_model, save_base
from tests.bench.contest.shapes import Shape

BASE, HELD_OUT, SAMPLES, OURS = "base", "held_out.jsonl", "samples.json", "ours"
SEED = 7
_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "lib2to3", "__pycache__"}


def read_corpus() -> list[Item]:
    """Return the standard library's files without its tests, in the order of their hashes."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = (path for path in root.rglob("*.py") if not _LEFT_OUT & set(path.relative_to(root).parts[:-1]))
    items = [item for number, path in enumerate(sorted(paths)) if (item := _read(root, path, number))]
    return sorted(items, key=lambda item: item.sha256)


def _read(root: Path, path: Path, number: int) -> Item | None:
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
    return Item(
        ordinal=number,
        item_id=number,
        role="train",
        content=content,
        sha256=sha256(content.encode()).hexdigest(),
        language="Python",
        path=str(path.relative_to(root)),
        repository="stdlib",
        unit=path.name,
    )


def take(items: list[Item], most_chars: int) -> list[Item]:
    """Return the first items that together have so many characters, and remove them."""
    taken, chars = [], 0
    while items and chars < most_chars:
        item = items.pop(0)
        taken.append(item)
        chars += len(item.content)
    return taken


def build_stage(folder: Path, shape: Shape, threads: int, device: str = "cpu") -> Job:
    """Write everything the contestants read; return our job."""
    settings = shape.settings.model_copy(update={"threads": threads})
    corpus = read_corpus()
    members, held_out = take(corpus, shape.train_chars), take(corpus, shape.held_out_chars)
    tokenizer = train_tokenizer([item.content for item in take(corpus, shape.tokenizer_chars)], settings.vocabulary)
    torch.manual_seed(SEED)
    base = folder / BASE
    base.mkdir(parents=True)
    save_base(make_model(settings, tokenizer), tokenizer, base)
    write_items(folder / HELD_OUT, held_out)
    samples = [
        {"input_ids": sample.input_ids.tolist(), "prompt_tokens": sample.prompt_tokens}
        for sample in build_all(members, load_tokenizer(str(base), None), settings, seed=SEED)
    ]
    (folder / SAMPLES).write_text(json.dumps(samples))
    job = Job(line="bench", run=1, kind="adapter", seed=SEED, device=device, base=str(base), settings=settings)
    write_job(folder / OURS, job, members)
    return job


def write_job(folder: Path, job: Job, members: Iterable[Item], validation: Iterable[Item] = ()) -> None:
    """Write a job directory as the control half would."""
    folder.mkdir()
    write_items(folder / MEMBERS, members)
    write_items(folder / VALIDATION, validation)
    (folder / JOB).write_text(job.model_dump_json())


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write items as a job file has them."""
    path.write_text("".join(item.model_dump_json() + "\n" for item in items))


def read_job(stage: Path, name: str = OURS) -> Job:
    """Return the job of a stage."""
    return Job.model_validate_json((stage / name / JOB).read_text())


def read_samples(stage: Path) -> list[dict[str, Any]]:
    """Return the samples as other stacks take them: ids, and labels in which the prompt does not count."""
    return [
        {
            "input_ids": sample["input_ids"],
            "labels": [-100] * sample["prompt_tokens"] + sample["input_ids"][sample["prompt_tokens"] :],
        }
        for sample in json.loads((stage / SAMPLES).read_text())
    ]
