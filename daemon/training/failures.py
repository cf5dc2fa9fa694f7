"""Why a child failed: one function turns an exception into the reason that the parent, the metrics and people see."""

import contextlib
import errno
import traceback
from collections.abc import Iterator, Sequence
from typing import NoReturn

from safetensors import SafetensorError

from daemon.job import Failure
from daemon.training.child import Failed, Reason, Stopped
from schema.failpoints import FailpointHit

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
# Libraries that write files themselves hand on the system's number (safetensors) or the state of a stream (torch.save).
_DISK_WORDS = (*(f"(os error {number})" for number in _DISK_ERRORS), "inline_container.cc", "iostream error")
# What a RuntimeError says when it means that memory is short: the CPU's allocator, the driver, cuBLAS.
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
# What it says when another process is gone, with which it trained.
_PEER = ("NCCL", "gloo/transport", "Connection closed by peer")
_DEVICE = ("CUDA error", "CUDA driver", "CUBLAS_STATUS", "cuDNN error", "device-side assert", "No CUDA GPUs", *_PEER)


class OutOfMemory(Exception):
    """A micro-batch does not fit."""


def classify(error: BaseException, *, items: Sequence[str] = (), claimed: bool = True) -> Failure:
    """Say why the child failed: the reason, and whether the rows of the run caused it.

    They did where an item's sample or step raised what neither memory nor disk nor device nor a failpoint explains.

    Args:
        error: what was raised.
        items: names of the items whose sample or step was at work; none: something else was.
        claimed: whether they are rows of the run; a held-out item is nothing that a smaller run would leave out.
    """
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, Failed):
        return error.failure.model_copy(update={"traceback": trace})
    reason = _find_reason(error)
    return Failure(
        reason=reason,
        message=": ".join([*([", ".join(items)] if items else []), f"{type(error).__name__}: {error}"]),
        data_caused=bool(items) and claimed and reason == "exception" and not isinstance(error, FailpointHit),
        traceback=trace,
    )


def _find_reason(error: BaseException) -> Reason:
    if means_out_of_memory(error):
        return "out_of_memory"
    if means_disk(error):
        return "disk"
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _DEVICE):
        return "device"
    return "exception"


@contextlib.contextmanager
def blaming(items: Sequence[str], *, claimed: bool = True) -> Iterator[None]:
    """Turn what the block raises into Failed that names the items it was at work on, as `classify` judges it."""
    try:
        yield
    except (Failed, Stopped, OutOfMemory):
        raise
    except BaseException as error:
        # A panic in a Rust library is no Exception, and its type cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        failure = classify(error, items=items, claimed=claimed)
        raise Failed(failure.reason, failure.message, data_caused=failure.data_caused) from error


def means_out_of_memory(error: BaseException) -> bool:
    """Whether an error, by its type or by its words, says that memory does not suffice."""
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def means_lost_peer(message: str) -> bool:
    """Whether the message of a failure says that another process was gone, not what was wrong with this one."""
    return any(words in message for words in _PEER)


def means_disk(error: BaseException) -> bool:
    """Whether an error says that the disk is full, read-only or broken."""
    if isinstance(error, OSError):
        return error.errno in _DISK_ERRORS
    return isinstance(error, RuntimeError | SafetensorError) and any(words in str(error) for words in _DISK_WORDS)


def raise_if_out_of_memory(error: Exception) -> NoReturn:
    """Raise OutOfMemory for an error that means it, and the error itself otherwise."""
    if means_out_of_memory(error):
        raise OutOfMemory(str(error)) from error
    raise error
