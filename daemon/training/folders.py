"""Folders that are there whole or not at all."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from daemon.files import TEMPORARY, sync_files, sync_folder
from schema import failpoints


@contextlib.contextmanager
def new_folder(path: Path, failpoints_of: str | None = None) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` when the block ends well; an older one is replaced.

    `failpoints_of` names the thing in the failpoints around the rename.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    sync_files(temporary)
    shutil.rmtree(path, ignore_errors=True)
    if failpoints_of:
        failpoints.hit(f"{failpoints_of}.before_rename")
    temporary.rename(path)
    sync_folder(path.parent)
    if failpoints_of:
        failpoints.hit(f"{failpoints_of}.after_rename")
