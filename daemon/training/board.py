"""TensorBoard beside the run, by transformers' own callback; the package comes with the extra `tensorboard`."""

import logging
import os
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import TensorBoardCallback

from daemon.job import Job
from daemon.training.child import Child

log = logging.getLogger(__name__)
MISSING = "tracker is tensorboard, but its package is not installed: pip install 'codelupe[tensorboard]'; not tracked"


class Board(TensorBoardCallback):
    """The callback, which once it has failed does nothing more: it must not stop a training."""

    has_failed = False

    def call(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Run a hook of the callback."""
        if self.has_failed:
            return
        try:
            getattr(super(), hook)(*args, **kwargs)
        except Exception:  # a courtesy
            self.has_failed = True
            log.exception("TensorBoard stopped following", extra={"event": "tracker_failed"})

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Open the files and write the arguments."""
        self.call("on_train_begin", *args, **kwargs)

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Write figures, and texts."""
        self.call("on_log", *args, **kwargs)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Close the files."""
        self.call("on_train_end", *args, **kwargs)


def open_board(job: Job, job_dir: Path, child: Child) -> Board | None:
    """Return the callback where the settings ask for it; where its package is missing, say so and go on without."""
    if job.settings.tracker != "tensorboard":
        return None
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(job_dir / "tensorboard")
    try:
        return Board()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        log.warning("%s (%s)", MISSING, error, extra={"event": "tracker_failed"})
        child.emit("note", note="tracker_failed", message=MISSING)
        return None
