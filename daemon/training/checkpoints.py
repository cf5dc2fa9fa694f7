"""Checkpoints: whole or not there, hashed, the last two kept, a torn one passed over."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from daemon.files import TEMPORARY, digest_folder
from daemon.training.folders import new_folder

CHECKPOINTS = "checkpoints"  # the folder of a job that they lie in
KEPT = 2
MANIFEST = "manifest.json"


@contextlib.contextmanager
def new_checkpoint(folder: Path, step: int) -> Iterator[Path]:
    """Yield the folder to fill; then hash it, move it in place, and drop all but the newest two.

    Raises:
        Failed: disk, with the path; the earlier checkpoints are all there.
    """
    with new_folder(folder / f"checkpoint-{step:08d}", failpoints_of="checkpoint") as temporary:
        yield temporary
        (temporary / MANIFEST).write_text(json.dumps(digest_folder(temporary)))
    for old in _by_age(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)  # what is left of it is torn, and goes with the next one


def find_checkpoint(folder: Path, on_torn: Callable[[Path], None] | None = None) -> Path | None:
    """Return the newest checkpoint whose every file has its hash; None where there is none.

    One that a process was replacing as it was killed counts as well. `on_torn` is called with each one passed over.
    """
    for path in _by_age(folder):
        if _is_whole(path):
            return path
        if on_torn is not None:
            on_torn(path)
    return None


def _by_age(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if not path.name.endswith(TEMPORARY)]
    return sorted(found, reverse=True)


def _is_whole(path: Path) -> bool:
    try:
        digests = json.loads((path / MANIFEST).read_text())
        return bool(digest_folder(path, without=MANIFEST) == digests)
    except (OSError, ValueError):
        return False
