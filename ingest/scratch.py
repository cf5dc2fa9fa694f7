"""The folders in which sources are cloned: one per visit, held by a file lock, gone afterwards even after a crash."""

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ingest.entries import SourceFailed
from schema.failpoints import hit
from schema.repositories import Claim

log = logging.getLogger(__name__)
_LOCK_NAME = "lock"


@contextlib.contextmanager
def open_scratch(home: Path, claim: Claim) -> Iterator[Path]:
    """Yield an empty folder for one visit under `home`/repos, and delete it with all that is in it."""
    path = repos_folder(home) / f"{claim.repository_id}-{claim.lease_token}"
    hit("ingest.before_scratch")
    path.mkdir(parents=True, mode=0o700)
    try:
        with (path / _LOCK_NAME).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (path / "template").mkdir()
            yield path
    finally:
        _delete(path)


def sweep_scratch(home: Path) -> int:
    """Delete what visits that were killed have left behind; return how many. Those of living workers are locked."""
    num_swept = 0
    for path in sorted(repos_folder(home).glob("*/")):
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context((path / _LOCK_NAME).open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _delete(path)
            except BlockingIOError:
                continue
            except OSError as error:
                log.warning("cannot sweep %s: %s", path.name, error, extra={"event": "sweep_failed"})
                continue
            num_swept += 1
    if num_swept:
        log.info(
            "%d clones of an earlier start deleted", num_swept, extra={"event": "clones_swept", "clones": num_swept}
        )
    return num_swept


def check_budget(scratch: Path, *, max_bytes: int) -> None:
    """Make room when all clones together are above the limit: the newest one gives way, so that the oldest ends.

    Raises:
        SourceFailed: it is this one; `clone_too_large` when it alone is above the limit.
    """
    num_bytes = {path: _measure(path) for path in scratch.parent.glob("*/")}
    if sum(num_bytes.values()) <= max_bytes:
        return
    if num_bytes.get(scratch, 0) > max_bytes:
        raise SourceFailed("clone_too_large", f"its clone alone is above {max_bytes} bytes", is_permanent=True)
    if max(num_bytes, key=_age_order) == scratch:
        raise SourceFailed("clones_full", f"all clones together are above {max_bytes} bytes", is_permanent=False)


def has_room(home: Path, *, max_bytes: int) -> bool:
    """Say whether another clone may be begun; leftovers of workers that were killed make way for it."""
    folder = repos_folder(home)
    if sum(map(_measure, folder.glob("*/"))) < max_bytes:
        return True
    sweep_scratch(home)
    return sum(map(_measure, folder.glob("*/"))) < max_bytes


def _measure(folder: Path) -> int:
    """Return the bytes on disk of what lies below a folder; what vanishes meanwhile does not count."""
    num_bytes = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                num_bytes += os.lstat(f"{root}/{name}").st_blocks * 512
    return num_bytes


def _age_order(scratch: Path) -> tuple[int, str]:
    with contextlib.suppress(OSError):
        return (scratch / _LOCK_NAME).stat().st_mtime_ns, scratch.name
    return 0, scratch.name


def repos_folder(home: Path) -> Path:
    """Return the folder that all clones lie in; made if it is not there."""
    path = home / "repos"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _delete(path: Path) -> None:
    def make_writable(_: object, name: str, __: object) -> None:
        os.chmod(Path(name).parent, 0o700)  # noqa: PTH101 - rmtree's own names
        Path(name).unlink(missing_ok=True)

    # git writes its objects without write permission; shutil must not stumble over a folder like that.
    shutil.rmtree(path, onerror=make_writable)
