"""The libraries' import, most of the time to the first step: without what a training never runs."""

import contextlib
import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any


def import_verb(verb: str) -> Callable[..., None]:
    """Import a verb with all that it needs; return its function."""
    with _uncollected():
        import_libraries()
        act: Callable[..., None] = getattr(importlib.import_module(f"daemon.training.{verb}"), verb)
    return act


def import_libraries() -> None:
    """Import torch and bitsandbytes without torch's compiler, whose own import takes as long as theirs.

    bitsandbytes hands four functions to torch.compile as it is imported: kernels for devices that have none of their
    own. Neither the CPU's kernels nor CUDA's run them, and uncompiled they give the same.

    Nor will `datasets` be imported, which Trainer does wherever it is installed: our rows are none of its own.
    """
    sys.modules.setdefault("datasets", None)  # type: ignore[arg-type]  # Python's way to say: not to be had
    import torch

    compiler = torch.compile
    torch.compile = _leave_uncompiled  # type: ignore[assignment]
    try:
        importlib.import_module("bitsandbytes")
    finally:
        torch.compile = compiler


def _leave_uncompiled(function: Callable[..., Any] | None = None, **_options: Any) -> Callable[..., Any]:
    """Stand for torch.compile, as a decorator with options and without."""
    return function if function is not None else lambda decorated: decorated


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no garbage among what is imported, now or later: it all stays, and there are a million objects."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
