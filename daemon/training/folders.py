"""Folders that are there whole or not at all."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from daemon.files import TEMPORARY, sync_files, sync_folder
from daemon.training.child import Failed
from daemon.training.failures import means_disk
from schema import failpoints

REPLACED = ".replaced"


@contextlib.contextmanager
def new_folder(path: Path, failpoints_of: str | None = None) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` when the block ends well; an older one is replaced.

    Whatever is raised, the temporary folder is gone and an older `path` still there. Only a process killed between
    the two renames leaves the older one under the name it has meanwhile, `path` + REPLACED.

    Args:
        path: the folder to be.
        failpoints_of: names the thing in the failpoints around its first write and the rename.

    Raises:
        Failed: disk, with the path, where the disk is full or broken.
    """
    temporary, replaced = (path.with_name(path.name + suffix) for suffix in (TEMPORARY, REPLACED))
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        _hit(failpoints_of, "before_write")
        yield temporary
        sync_files(temporary)
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            path.rename(replaced)
        _hit(failpoints_of, "before_rename")
        temporary.rename(path)
        sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        if means_disk(error):
            raise Failed("disk", f"{path} could not be written: {error}") from error
        raise
    shutil.rmtree(replaced, ignore_errors=True)
    _hit(failpoints_of, "after_rename")


def _hit(thing: str | None, place: str) -> None:
    if thing:
        failpoints.hit(f"{thing}.{place}")
