"""The batches of the next step, made by a thread while the present step runs."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from types import TracebackType

import torch

from daemon.training.data import Batch
from daemon.training.ranks import rank


class Prefetch:
    """One thread, one step ahead; the order stays that of the batches."""

    def __init__(self, device: str) -> None:
        # Each thread has a current GPU of its own.
        begin = partial(torch.cuda.set_device, rank()) if device == "cuda" else None
        self._thread = ThreadPoolExecutor(1, "prefetch", begin)
        self._next: Future[list[Batch]] | None = None

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown()

    def take(self, batches: Iterator[Batch], num: int) -> list[Batch]:
        """Return the next `num` batches, fewer at the end, and begin with as many after them.

        What making a batch raised is raised where it is taken, not before.
        """
        taken = (self._next or self._begin(batches, num)).result()
        self._next = self._begin(batches, num)
        return taken

    def _begin(self, batches: Iterator[Batch], num: int) -> Future[list[Batch]]:
        return self._thread.submit(lambda: list(islice(batches, num)))
