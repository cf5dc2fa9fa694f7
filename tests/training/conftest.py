"""A micro base (one layer, 64 wide) on a few small functions, and jobs on it."""

import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"

import torch

from daemon.config import TrainingSettings
from daemon.job import MEMBERS, TEST, VALIDATION, Event, Item, Job
from daemon.samples import train_tokenizer
from daemon.training.architectures import make_model, save_base
from daemon.training.child import Child

MICRO: dict[str, Any] = {
    "base_model": "local:tiny",
    "sequence_tokens": 256,
    "max_chars": 600,
    "lora_rank": 8,
    "lora_alpha": 16,
    "learning_rate": 1e-2,
    "micro_batch": 4,
    "accumulation": 1,
    "compute_dtype": "float32",
    "checkpointed_layers": 0,
    "hidden_size": 64,
    "num_layers": 1,
    "intermediate_size": 128,
    "vocabulary": 512,
    "threads": 1,
    "patience": 100,
    "tracker": "none",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """peft asks transformers by a name that the newest one calls old."""
    for item in items:
        if "tests/training" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"))


def write_code(number: int) -> str:
    functions = [
        f"def combine_{number}_{k}(first, second):\n    total = first + second * {k}\n"
        f"    if total > {number}:\n        return total - {k}\n    return total\n"
        for k in range(6)
    ]
    return "\n\n".join([f'"""Module {number}."""\n', *functions])


def make_items(first: int, num: int, role: str) -> list[Item]:
    contents = [write_code(first + k) for k in range(num)]
    return [
        Item(
            ordinal=k,
            item_id=first + k,
            role=role,
            content=content,
            sha256=sha256(content.encode()).hexdigest(),
            language="Python",
            path=f"m{first + k}.py",
            repository="r",
            unit=f"u{(first + k) % 3}",
        )
        for k, content in enumerate(contents)
    ]


def write_items(path: Path, items: list[Item]) -> None:
    path.write_text("".join(json.dumps(item.model_dump()) + "\n" for item in items))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained micro base with a tokenizer of its own."""
    settings = TrainingSettings(**MICRO)
    tokenizer = train_tokenizer([write_code(k) for k in range(20)], settings.vocabulary)
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(1)
    save_base(make_model(settings, tokenizer), tokenizer, folder)
    return folder


@pytest.fixture
def make_job(base: Path, tmp_path: Path) -> Callable[..., tuple[Job, Path]]:
    """Return a builder of jobs: what differs from MICRO, and the fields of the job."""
    numbers = iter(range(1, 100))

    def make(num_members: int = 16, *, fields: dict[str, Any] | None = None, **settings: Any) -> tuple[Job, Path]:
        run = next(numbers)
        job_dir = tmp_path / "runs" / "micro" / f"{run:04d}"
        job_dir.mkdir(parents=True)
        write_items(job_dir / MEMBERS, make_items(100, num_members, "train"))
        write_items(job_dir / VALIDATION, make_items(200, 4, "validation"))
        write_items(job_dir / TEST, make_items(300, 5, "test"))
        common = {"line": "micro", "run": run, "uuid": "u", "kind": "adapter", "seed": 7, "device": "cpu"}
        common |= {"base": str(base), "settings": TrainingSettings(**MICRO | settings)}
        job = Job.model_validate(common | (fields or {}))
        (job_dir / "job.json").write_text(job.model_dump_json())
        return job, job_dir

    return make


class Recorder(Child):
    """A child that keeps its events, and can be told to stop at one of them."""

    def __init__(self, stop_at: Callable[[Event], bool] = lambda _: False) -> None:
        self.events: list[Event] = []
        super().__init__(self._record)
        self._stop_at = stop_at

    def _record(self, event: Event) -> None:
        self.events.append(event)
        if self._stop_at(event):
            self.request_stop()

    def of(self, name: str) -> list[Event]:
        return [event for event in self.events if event["event"] == name]


@pytest.fixture
def recorder() -> type[Recorder]:
    """The class of a child whose events can be looked at."""
    return Recorder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Leave the number of threads as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
