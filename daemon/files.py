"""Files that appear whole or not at all: temporary name, fsync, rename, fsync of the folder."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20
TEMPORARY = ".tmp"


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step that survives a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
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
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(line + "\n")
            num_lines += 1
        file.flush()
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
    temporary.symlink_to(target)
    temporary.replace(link)
    sync_folder(link.parent)


def sweep_temporaries(folder: Path) -> list[str]:
    """Remove what a killed writer left directly in `folder`; return the names."""
    if not folder.is_dir():
        return []
    left = [path for path in folder.iterdir() if path.name.endswith(TEMPORARY)]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return [path.name for path in left]
