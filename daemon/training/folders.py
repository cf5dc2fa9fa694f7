"""Folders that are there whole or not at all."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from daemon.files import TEMPORARY, sync_files, sync_folder


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` when the block ends well; an older one is replaced."""
    temporary = path.with_name(path.name + TEMPORARY)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    sync_files(temporary)
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)
    sync_folder(path.parent)
