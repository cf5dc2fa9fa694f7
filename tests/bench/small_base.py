"""A small base for benches: real files picked by hash, a tokenizer and a model of their own, by the verb `pretrain`."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from daemon.config import TrainingSettings
from daemon.files import write_lines
from daemon.job import JOB, MEMBERS, Event, Item, Job, Result
from daemon.training.base import load_base
from daemon.training.base_files import load_base_tokenizer
from daemon.training.child import Child
from daemon.training.evaluate import sum_bits
from daemon.training.pretrain import pretrain
from daemon.training.rows import build_samples_of
from ingest.folders import Folder
from ingest.judge import judge_file
from sourcecode.fingerprints import stable_share
from sourcecode.limits import Limits

_LIMITS = Limits()
# Two layers, 64 wide, sequences of 256: fast enough for dozens of rounds on one busy core.
SMALL: dict[str, Any] = {
    "base_model": "local:tiny",
    "sequence_tokens": 256,
    "max_chars": 800,
    "fim_share": 0.25,
    "lora_rank": 16,
    "lora_alpha": 32,
    "learning_rate": 2e-3,
    "pretrain_learning_rate": 8e-3,
    "micro_batch": 4,
    "accumulation": 1,
    "checkpointed_layers": 0,
    "compute_dtype": "float32",
    "hidden_size": 64,
    "num_layers": 2,
    "intermediate_size": 192,
    "vocabulary": 1024,
    "threads": 1,
    "tracker": "none",
}


@dataclass(frozen=True, slots=True)
class Picked:
    """A file that ingest accepts."""

    path: str
    language: str
    text: str


def pick(tree: Path, max_chars: int, *, most_chars_of_one: int = 30_000) -> Iterator[Picked]:
    """Yield accepted files of a tree in the order of their hashes, up to so many characters."""
    folder = Folder(str(tree.resolve()), max_file_bytes=_LIMITS.max_file_bytes, max_entries=1_000_000)
    entries = [entry for entry in folder.list_entries() if not entry.reason]
    left = max_chars
    for entry in sorted(entries, key=lambda entry: stable_share(entry.path)):
        found = judge_file(entry.path, folder.read(entry) or b"", _LIMITS, is_executable=entry.is_executable)
        if found.text is None or found.language is None or found.num_chars > most_chars_of_one:
            continue
        if (left := left - found.num_chars) < 0:
            return
        yield Picked(entry.path, found.language, found.text)


def make_base(folder: Path, files: Sequence[Picked], *, epochs: int, **settings: Any) -> Path:
    """Pre-train a base in `folder` unless it is there; return its folder. Each epoch has the files in another order."""
    if (folder / "result.json").exists():
        return folder / "base"
    folder.mkdir(parents=True, exist_ok=True)
    own = TrainingSettings(**SMALL | settings)
    write_lines(folder / MEMBERS, (item.model_dump_json() for item in _items(files, epochs)))
    job = Job(line="base", run=0, kind="base", seed=1, settings=own, device="cpu", base=str(folder / "base"))
    (folder / JOB).write_text(job.model_dump_json())
    pretrain(job, folder, Child(show))
    return folder / "base"


def measure_base(base: Path, files: Sequence[Picked], **settings: Any) -> dict[str, float]:
    """Return the tokens that a base was trained on, and the bits per byte that files cost it."""
    own = TrainingSettings(**SMALL | settings)
    job = Job(line="base", run=0, kind="base", seed=1, settings=own, device="cpu", base=str(base))
    samples = list(build_samples_of(_items(files, 1), load_base_tokenizer(job), own, seed=None))
    bits = sum(sum_bits(load_base(job), samples, job, Child(show), flat=False).values())
    result = Result.model_validate_json((base.parent / "result.json").read_bytes())
    return {"tokens": result.tokens, "bits_per_byte": round(bits / sum(one.completion_bytes for one in samples), 4)}


def show(event: Event) -> None:
    """Tell every hundredth step, and what is no step, on standard error."""
    if event["event"] in ("step", "progress"):
        if event.get("step", 1) % 100:
            return
        event = {name: event[name] for name in ("step", "total", "loss", "tokens_per_s")}
    sys.stderr.write(json.dumps(event, default=str) + "\n")


def _items(files: Sequence[Picked], epochs: int) -> Iterator[Item]:
    for ordinal in range(epochs * len(files)):
        file = files[ordinal % len(files)]
        yield Item(
            ordinal=ordinal,
            item_id=ordinal,
            role="base",
            content=file.text,
            sha256=sha256(file.text.encode()).hexdigest(),
            language=file.language,
            path=file.path,
            repository="base",
            unit=file.path,
        )
