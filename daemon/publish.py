"""Versions on disk: complete or absent, immutable, checked before use (I4). The database decides which is current."""

import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.files import (
    TEMPORARY,
    copy_files,
    digest_file,
    digest_folder,
    flip_symlink,
    removed_on_failure,
    sync_files,
    sync_folder,
    walk_files,
    write_json,
)
from daemon.paths import LinePaths
from schema import failpoints

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


class DamagedVersion(RuntimeError):
    """What lies on disk is not what its manifest lists."""


def publish_folder(source: Path, target: Path, manifest: dict[str, Any], *, confirm: Callable[[], None]) -> str:
    """Copy `source` to `target` by one rename, with a manifest; return the manifest's SHA-256.

    A `target` that is there already was made by an interrupted try of the same run: it is kept when it verifies against
    the same source, and set aside when not. `confirm` is called just before, and raises where we may not do that now.
    """
    files = digest_folder(source)
    if target.exists() and _holds(target, files):
        return digest_file(target / MANIFEST)
    temporary = target.with_name(f"{target.name}.{os.getpid()}{TEMPORARY}")
    with removed_on_failure(temporary):
        copy_files(source, temporary)
        write_json(temporary / MANIFEST, {**manifest, "files": files})
        sync_files(temporary)
        failpoints.hit("publish.before_rename")
        confirm()
        if target.exists():
            # Not ours to delete: a folder of another database's life, or one that was changed by hand.
            target.rename(target.with_name(f"{target.name}.aside-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"))
            log.warning("%s was in the way and is set aside", target, extra={"event": "version_set_aside"})
        temporary.rename(target)
    sync_folder(target.parent)
    failpoints.hit("publish.after_rename")
    return digest_file(target / MANIFEST)


def verify_folder(folder: Path, manifest_digest: str | None = None) -> dict[str, Any]:
    """Return the manifest of a published folder after checking every file. Raises DamagedVersion, naming the file."""
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
        manifest: dict[str, Any] = json.loads(raw)
        listed: dict[str, str] = manifest["files"]
    except (OSError, ValueError, KeyError) as error:
        raise DamagedVersion(f"{path} cannot be read ({error}): restore the folder or roll back") from error
    if manifest_digest is not None and digest_file(path) != manifest_digest:
        raise DamagedVersion(f"{path} is not the manifest that was published: restore the folder or roll back")
    found = digest_folder(folder, without=MANIFEST)
    wrong = sorted(name for name in listed.keys() | found.keys() if listed.get(name) != found.get(name))
    if wrong:
        raise DamagedVersion(f"{folder}: {', '.join(wrong[:3])} differ from the manifest: restore them or roll back")
    return manifest


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in walk_files(folder))


def point_current(paths: LinePaths, number: int | None) -> bool:
    """Make the symlink `current` follow the database; return whether it had to move."""
    if number is None:
        return False
    target = f"versions/{number:04d}"
    if paths.current.is_symlink() and str(paths.current.readlink()) == target:
        return False
    paths.models.mkdir(parents=True, exist_ok=True)
    flip_symlink(paths.current, target)
    failpoints.hit("publish.after_symlink")
    log.info(
        "current now points to %s", target, extra={"event": "current_moved", "line": paths.line, "version": number}
    )
    return True


def _holds(target: Path, files: dict[str, str]) -> bool:
    try:
        return bool(verify_folder(target)["files"] == files)
    except DamagedVersion:
        return False
