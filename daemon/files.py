"""Files that appear whole or not at all: temporary name, fsync, rename, fsync of the folder."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schema import failpoints

_CHUNK = 1 << 20
TEMPORARY = ".tmp"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def removed_on_failure(temporary: Path) -> Iterator[None]:
    """Remove the file or folder `temporary` if the body fails; an error of a full disk names it."""
    try:
        yield
    except BaseException as error:
        remove(temporary)
        if isinstance(error, OSError) and error.errno in _FULL:
            error.filename, error.filename2 = str(temporary), None
        raise


def describe_error(error: Exception) -> str:
    """Return an error's words for people; those of a full disk say what to do."""
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" at {error.filename}" if error.filename else ""
        return f"the disk is full{where}: free space, or move CODELUPE_HOME to a larger disk ({error.strerror})"
    first_line = str(error).partition("\n")[0]  # a statement and its values follow, in an error of the database
    return f"{type(error).__name__}: {first_line}"


def remove(path: Path) -> None:
    """Remove a file, a symlink or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step that survives a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    with removed_on_failure(temporary):
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            failpoints.hit("file.before_sync")
            os.fsync(file.fileno())
        temporary.replace(path)
    sync_folder(path.parent)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Replace `path` by a JSON document, atomically."""
    write_atomically(path, (json.dumps(document, indent=2, sort_keys=True, default=str) + "\n").encode())


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write a JSON-lines file as a whole or not at all; return the number of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    num_lines = 0
    with removed_on_failure(temporary):
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for line in lines:
                file.write(line + "\n")
                num_lines += 1
            file.flush()
            failpoints.hit("file.before_sync")
            os.fsync(file.fileno())
        temporary.replace(path)
    sync_folder(path.parent)
    return num_lines


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(folder: Path) -> None:
    """Make every file below `folder` durable."""
    for path in walk_files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def copy_files(source: Path, target: Path) -> None:
    """Copy the regular files below `source` to the new folder `target`."""
    target.mkdir(parents=True)
    for path in walk_files(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        failpoints.hit("publish.before_copy")
        shutil.copyfile(path, copy)


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield the regular files below `folder`, sorted."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest_folder(folder: Path, *, without: str | None = None) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder` by its relative path, leaving out the file `without`."""
    names = {path.relative_to(folder).as_posix(): path for path in walk_files(folder)}
    return {name: digest_file(path) for name, path in names.items() if name != without}


def flip_symlink(link: Path, target: str) -> None:
    """Point `link` at `target` in one step."""
    temporary = link.with_name(f"{link.name}.{os.getpid()}{TEMPORARY}")
    temporary.unlink(missing_ok=True)
    with removed_on_failure(temporary):
        temporary.symlink_to(target)
        failpoints.hit("publish.before_symlink")
        temporary.replace(link)
    sync_folder(link.parent)


def sweep_temporaries(folder: Path) -> list[str]:
    """Remove what a killed writer left directly in `folder`; return the names."""
    if not folder.is_dir():
        return []
    left = [path for path in folder.iterdir() if path.name.endswith(TEMPORARY)]
    for path in left:
        remove(path)
    return [path.name for path in left]
