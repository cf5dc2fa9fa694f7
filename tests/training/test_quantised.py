"""The quantised base is kept on disk: the same bits as quantised afresh, and never taken for those of another base."""

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from daemon.job import Job
from daemon.training.base import load_base
from daemon.training.base_files import load_base_tokenizer
from daemon.training.data import collate
from daemon.training.lora import attach_adapter
from daemon.training.loss import sum_losses
from daemon.training.model import head, hidden_at_targets
from daemon.training.rows import build_samples_of, pack_rows, read_items

MakeJob = Callable[..., tuple[Job, Path]]
WEIGHTS, MANIFEST = "model.safetensors", "manifest.json"


@pytest.fixture
def own_base(base: Path, tmp_path: Path) -> Path:
    """A base that a test may change."""
    return Path(shutil.copytree(base, tmp_path / "base"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "bases"


@pytest.fixture
def make(make_job: MakeJob, own_base: Path, cache: Path) -> Callable[..., tuple[Job, Path]]:
    """Build jobs on that base and that cache."""
    return lambda **settings: make_job(2, fields={"base": str(own_base), "base_cache": cache}, **settings)


def kept_in(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def is_from(cache: Path, model: Any) -> bool:
    return Path(model.name_or_path).parent == cache


def have_same_bits(one: Any, other: Any) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def learn(model: Any, job: Job, job_dir: Path) -> dict[str, Tensor]:
    """Return the gradients of a new adapter, and the loss."""
    torch.manual_seed(3)
    adapted = attach_adapter(model, job)
    items = read_items(job_dir / "members.jsonl")
    samples = list(build_samples_of(items, load_base_tokenizer(job), job.settings, seed=1))
    batch = collate(pack_rows(samples, job.settings.sequence_tokens).rows, flat=False)
    loss = sum_losses(hidden_at_targets(adapted, batch, torch.float32), head(adapted), batch["targets"])
    loss.backward()
    gradients = {name: p.grad for name, p in adapted.named_parameters() if p.grad is not None}
    return gradients | {"loss": loss.detach()}


def test_it_gives_the_bits_the_loss_and_the_gradients_of_one_that_is_quantised_afresh(make: Any, cache: Path) -> None:
    job, job_dir = make()
    afresh, kept = load_base(job), load_base(job)
    assert not is_from(cache, afresh)
    assert is_from(cache, kept)
    assert have_same_bits(afresh, kept)
    expected, found = learn(afresh, job, job_dir), learn(kept, job, job_dir)
    assert len(expected) > 1
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_base_that_is_kept_as_it_is_needs_none(make: Any, cache: Path) -> None:
    load_base(make(quantisation="none")[0])
    assert not cache.exists()


def write_other_weights(base: Path) -> None:
    """Change one number in place, and set the file's time back."""
    before = (base / WEIGHTS).stat()
    weights = load_file(base / WEIGHTS)
    weights["model.layers.0.mlp.up_proj.weight"] *= 2
    save_file(weights, base / "new", metadata={"format": "pt"})
    (base / WEIGHTS).write_bytes((base / "new").read_bytes())
    os.utime(base / WEIGHTS, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (base / WEIGHTS).stat().st_size == before.st_size


OTHERS: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "other weights, of the same size and time": (write_other_weights, {}),
    "another configuration": (lambda base: os.utime(base / "config.json"), {}),
    "another arithmetic": (lambda _: None, {"compute_dtype": "bfloat16"}),
}


@pytest.mark.parametrize(("change", "settings"), OTHERS.values(), ids=OTHERS)
def test_it_is_not_taken_for_that_of_another_base(
    make: Any, own_base: Path, cache: Path, change: Callable[[Path], None], settings: dict[str, Any]
) -> None:
    load_base(make()[0])
    change(own_base)
    job, _ = make(**settings)
    found = load_base(job)
    assert not is_from(cache, found)
    assert have_same_bits(found, load_base(job.model_copy(update={"base_cache": None})))


def flip_a_byte(kept: Path) -> None:
    data = bytearray((kept / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (kept / WEIGHTS).write_bytes(data)


def pickle_weights(kept: Path) -> None:
    """Put a pickle in the place of the weights, with a manifest that fits."""
    torch.save(load_file(kept / WEIGHTS), kept / "pytorch_model.bin")
    (kept / WEIGHTS).unlink()
    names = ("pytorch_model.bin", "config.json", "generation_config.json")
    files = {name: sha256((kept / name).read_bytes()).hexdigest() for name in names if (kept / name).exists()}
    (kept / MANIFEST).write_text(json.dumps({"files": files}))


HARMS: dict[str, Callable[[Path], None]] = {
    "a flipped bit": flip_a_byte,
    "cut short": lambda kept: (kept / WEIGHTS).write_bytes((kept / WEIGHTS).read_bytes()[:-100]),
    "no weights": lambda kept: (kept / WEIGHTS).unlink(),
    "no manifest": lambda kept: (kept / MANIFEST).unlink(),
    "a manifest of something else": lambda kept: (kept / MANIFEST).write_text("[1]"),
    "a pickle instead": pickle_weights,
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_damaged_one_is_set_aside_and_made_anew(
    make: Any, cache: Path, recorder: Any, harm: Callable[[Path], None]
) -> None:
    job, child = make()[0], recorder()
    afresh = load_base(job)
    (kept,) = kept_in(cache)
    harm(kept)
    assert have_same_bits(load_base(job, note=child.note), afresh)
    (note,) = child.of("note")
    assert note["note"] == "base_cache_damaged"
    assert str(kept) in note["message"]
    assert is_from(cache, load_base(job, note=child.note))
    assert len(child.of("note")) == 1


def test_the_two_used_last_stay_and_what_a_killed_process_left_goes(make: Any, own_base: Path, cache: Path) -> None:
    left = cache / "0123.tmp"
    left.mkdir(parents=True)
    for _ in range(3):
        load_base(make()[0])
        os.utime(own_base / "config.json")
    assert len(kept_in(cache)) == 2
    assert left not in kept_in(cache)


def test_a_disk_without_room_is_told_and_the_base_loads_all_the_same(
    make: Any, cache: Path, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = recorder()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    assert load_base(make()[0], note=child.note) is not None
    assert kept_in(cache) == []
    assert "has 1: each start quantises the base again" in child.of("note")[0]["message"]


def test_a_cache_that_cannot_be_written_is_told_and_the_base_loads_all_the_same(
    make: Any, cache: Path, recorder: Any
) -> None:
    child = recorder()
    cache.parent.write_text("a file in the way")
    assert load_base(make()[0], note=child.note) is not None
    assert child.of("note")[0]["note"] == "base_cache_skipped"
