"""Why a run failed, and whether its rows are to blame: one table, and each way that an item can break a run."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch.distributed import DistBackendError

from daemon.job import MEMBERS, TEST, VALIDATION, Failure, Job
from daemon.samples import builders
from daemon.training import trainer as trainer_module
from daemon.training import validation as validation_module
from daemon.training.__main__ import run
from daemon.training.child import Failed
from daemon.training.evaluate import evaluate
from daemon.training.failures import OutOfMemory, classify, raise_if_out_of_memory
from daemon.training.pretrain import pretrain
from daemon.training.train import train
from schema import failpoints

MakeJob = Callable[..., tuple[Job, Path]]
ITEM = "item 7 (src/a.py)"


class PanicException(BaseException):
    """As a Rust library raises it."""


CUDA_ASSERT = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"
TABLE: list[tuple[BaseException, str, bool]] = [
    # what an item raises, and nothing else explains: the last column is whether it is the data's fault
    (ValueError("bad token"), "exception", True),
    (RecursionError("maximum recursion depth exceeded"), "exception", True),
    (RuntimeError("shape '[2]' is invalid for input of size 3"), "exception", True),
    (PanicException("byte index 3 is not a char boundary"), "exception", True),
    (FileNotFoundError(errno.ENOENT, "No such file or directory"), "exception", True),
    # memory, of the host and of the device
    (MemoryError(), "out_of_memory", False),
    (OutOfMemory("a micro-batch does not fit"), "out_of_memory", False),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out_of_memory", False),
    (RuntimeError("CUDA error: out of memory"), "out_of_memory", False),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "out_of_memory", False),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:124] can't allocate memory"), "out_of_memory", False),
    # the disk, as the system, safetensors and torch.save say it
    (OSError(errno.ENOSPC, "No space left on device"), "disk", False),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk", False),
    (OSError(errno.EROFS, "Read-only file system"), "disk", False),
    (OSError(errno.EIO, "Input/output error"), "disk", False),
    (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk", False),
    (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "disk", False),
    (RuntimeError("basic_ios::clear: iostream error"), "disk", False),
    # the device, also where a kernel's assertion says that an index is wrong
    (torch.AcceleratorError(CUDA_ASSERT, 710), "device", False),
    (RuntimeError("CUDA error: an illegal memory access was encountered"), "device", False),
    (DistBackendError("NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited"), "device", False),
    (RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer"), "device", False),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "device", False),
    # a test's failpoint
    (failpoints.FailpointHit("checkpoint.before_rename"), "exception", False),
    # what was judged where it was raised stays as it is
    (Failed("base_missing", "no base"), "base_missing", False),
    (Failed("nan", "step 3: loss nan", data_caused=True), "nan", True),
]


@pytest.mark.parametrize(("error", "reason", "data_caused"), TABLE, ids=lambda value: repr(value)[:60])
def test_a_failure_has_a_reason_and_the_data_are_to_blame_for_what_nothing_else_explains(
    error: BaseException, reason: str, data_caused: bool
) -> None:
    at_an_item = classify(error, items=[ITEM])
    assert (at_an_item.reason, at_an_item.data_caused) == (reason, data_caused)
    elsewhere, held_out = classify(error), classify(error, items=[ITEM], claimed=False)
    judged = isinstance(error, Failed)
    assert elsewhere.reason == held_out.reason == reason
    assert elsewhere.data_caused == held_out.data_caused == (judged and data_caused)
    assert type(error).__name__ in at_an_item.traceback
    if not judged:
        assert at_an_item.message.startswith(f"{ITEM}: {type(error).__name__}")


@pytest.mark.parametrize(
    ("error", "reason"), [row[:2] for row in TABLE if isinstance(row[0], RuntimeError | MemoryError)]
)
def test_what_means_out_of_memory_goes_down_the_ladder(error: Exception, reason: str) -> None:
    with pytest.raises(OutOfMemory if reason == "out_of_memory" else type(error)):
        raise_if_out_of_memory(error)


def failure_of(act: Callable[..., None], job: Job, job_dir: Path, child: Any) -> Failure:
    with pytest.raises(Failed) as caught:
        act(job, job_dir, child)
    return caught.value.failure


def break_drafts(monkeypatch: pytest.MonkeyPatch, item_id: int, error: BaseException) -> None:
    """Make the sample builder raise at one item."""
    real = builders.Places

    def places(language: str, content: str) -> Any:
        if f'"""Module {item_id}."""' in content:
            raise error
        return real(language, content)

    monkeypatch.setattr(builders, "Places", places)


@pytest.mark.parametrize("act", [train, pretrain])
def test_an_item_that_breaks_the_sample_builder_is_named_and_to_blame(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch, act: Callable[..., None]
) -> None:
    job, job_dir = make_job(24, fields={"kind": "base" if act is pretrain else "adapter"}, pretrain_frame_share=1.0)
    break_drafts(monkeypatch, 117, RecursionError("too deep"))
    failure = failure_of(act, job, job_dir, recorder())
    assert failure.reason == "exception"
    assert failure.data_caused
    assert failure.message == "item 117 (m117.py): RecursionError: too deep"


@pytest.mark.parametrize(("act", "item_id"), [(train, 201), (evaluate, 302)])
def test_a_held_out_item_that_breaks_it_is_named_but_no_claimed_row_is_to_blame(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch, act: Callable[..., None], item_id: int
) -> None:
    job, job_dir = make_job(4)
    break_drafts(monkeypatch, item_id, ValueError("odd"))
    failure = failure_of(act, job, job_dir, recorder())
    assert failure.message == f"item {item_id} (m{item_id}.py): ValueError: odd"
    assert not failure.data_caused


def test_too_little_memory_for_the_samples_is_not_the_datas_fault(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, job_dir = make_job(4)
    break_drafts(monkeypatch, 101, MemoryError())
    failure = failure_of(train, job, job_dir, recorder())
    assert failure.reason == "out_of_memory"
    assert not failure.data_caused


def test_a_sequence_too_short_for_the_frame_is_the_settings_fault(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(2, sequence_tokens=64)
    failure = failure_of(train, job, job_dir, recorder())
    assert "CODELUPE_SEQUENCE_TOKENS" in failure.message
    assert not failure.data_caused


def test_a_step_that_raises_names_the_items_of_its_micro_batch(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> torch.Tensor:
        raise IndexError("index out of range in self")

    monkeypatch.setattr(trainer_module, "sum_losses", broken)
    job, job_dir = make_job(3)
    failure = failure_of(train, job, job_dir, recorder())
    assert failure.reason == "exception"
    assert failure.data_caused
    assert failure.message.endswith("IndexError: index out of range in self")
    assert {f"item {item} (m{item}.py)" for item in (100, 101, 102)} & set(failure.message.split(": ")[0].split(", "))


def test_an_evaluation_that_raises_is_not_the_datas_fault(
    make_job: MakeJob, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> torch.Tensor:
        raise IndexError("index out of range in self")

    monkeypatch.setattr(validation_module, "token_losses", broken)
    job, job_dir = make_job(3)
    with pytest.raises(IndexError) as caught:
        train(job, job_dir, recorder())
    assert not classify(caught.value).data_caused


@pytest.mark.parametrize("act", [train, pretrain])
def test_rows_that_give_no_sample_are_to_blame(make_job: MakeJob, recorder: Any, act: Callable[..., None]) -> None:
    job, job_dir = make_job(2, fields={"kind": "base" if act is pretrain else "adapter"}, pretrain_frame_share=1.0)
    lines = [json.loads(line) for line in (job_dir / MEMBERS).read_text().splitlines()]
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of "x"
    (job_dir / MEMBERS).write_text(
        "".join(json.dumps(line | {"content": "x", "sha256": digest}) + "\n" for line in lines)
    )
    failure = failure_of(act, job, job_dir, recorder())
    assert failure.message == "the 2 claimed rows give no sample"
    assert failure.data_caused


@pytest.mark.parametrize("file", [MEMBERS, VALIDATION, TEST])
@pytest.mark.parametrize("damage", ["cut short", "no UTF-8", "another content"])
def test_a_job_file_that_is_damaged_on_disk_is_refused(
    make_job: MakeJob, recorder: Any, file: str, damage: str
) -> None:
    job, job_dir = make_job(2)
    data = (job_dir / file).read_bytes()
    harm = {
        "cut short": data[:-200],
        "no UTF-8": b"\xff" + data[1:],
        "another content": data.replace(b"first", b"F1rst"),
    }
    (job_dir / file).write_bytes(harm[damage])
    failure = failure_of(evaluate if file == TEST else train, job, job_dir, recorder())
    assert failure.reason == "disk"
    assert not failure.data_caused
    assert str(job_dir / file) in failure.message


def test_a_base_without_a_member_has_lost_its_file(make_job: MakeJob, recorder: Any) -> None:
    job, job_dir = make_job(0, fields={"kind": "base"})
    failure = failure_of(pretrain, job, job_dir, recorder())
    assert (failure.reason, failure.data_caused) == ("disk", False)


def test_what_the_child_dies_of_is_in_its_file(make_job: MakeJob, recorder: Any) -> None:
    _, job_dir = make_job(2)
    (job_dir / MEMBERS).unlink()
    assert run("train", job_dir, recorder()) == 1
    failure = Failure.model_validate_json((job_dir / "error.json").read_text())
    assert "members.jsonl" in failure.message
    assert "FileNotFoundError" in failure.traceback
