"""Quantised bases on disk: made once, loaded as such files ever after, and never taken for those of another base."""

import contextlib
import fcntl
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from daemon.files import digest_folder, remove
from daemon.training.child import Failed
from daemon.training.folders import new_folder
from daemon.training.model import Model

log = logging.getLogger(__name__)
KEPT = 2  # the base of today, and the one before an upgrade or of another line
MANIFEST = "manifest.json"
_DAMAGED = ".damaged"
_SPARE_BYTES = 1 << 30  # what a disk must have left beside it
_FORMAT = 1  # of what we store ourselves (fp8.py): to be raised with it
_LIBRARIES = ("torch", "transformers", "bitsandbytes")  # which decide what quantisation gives, and how it is written
Note = Callable[[str, str], None]


def ignore(_note: str, _message: str) -> None:
    """Take a note that nobody asked for."""


def name_key(wanted: Model, folder: Path, commit: str | None) -> str:
    """Return the name of a base's quantised form: of its very files, its settings, and the libraries that make it.

    A file is told by what the system keeps of it: hashing 30 GB takes longer than loading them. A copy of the same
    files is another base, which costs a quantisation and nothing else.
    """
    files = {path.name: _stamp_of(path) for path in sorted(folder.iterdir()) if _decides(path)}
    settings = wanted.settings
    kind = [settings.quantisation, settings.compute_dtype, wanted.device, _FORMAT]
    libraries = {name: version(name) for name in _LIBRARIES}
    described = json.dumps([wanted.base, commit, files, kind, libraries], sort_keys=True)
    return sha256(described.encode()).hexdigest()[:32]


def _decides(path: Path) -> bool:
    return path.name in ("config.json", "model.safetensors.index.json") or path.suffix == ".safetensors"


def _stamp_of(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def find_quantised(cache: Path, key: str, note: Note) -> Path | None:
    """Return the folder of that name whose every file has its hash; a damaged one is set aside, and that is told."""
    folder = cache / key
    if not folder.is_dir():
        return None
    try:
        if digest_folder(folder, without=MANIFEST) == json.loads((folder / MANIFEST).read_bytes())["files"]:
            (folder / MANIFEST).touch()  # when it was last used
            return folder
        detail = "its files differ from its manifest"
    except (OSError, ValueError, KeyError, TypeError) as error:
        detail = str(error)
    set_aside(folder, detail, note)
    return None


def set_aside(folder: Path, detail: str, note: Note) -> None:
    """Move a damaged quantised base out of the way: it is made anew, and this one goes when that is there."""
    aside = folder.with_name(folder.name + _DAMAGED)
    note("base_cache_damaged", f"the quantised base {folder} is damaged ({detail}): it is set aside and made anew")
    with contextlib.suppress(OSError):
        remove(aside)
        folder.rename(aside)


def save_quantised(model: Any, cache: Path, key: str, described: dict[str, Any], note: Note) -> None:
    """Write a quantised base, whole or not at all, and drop old ones; where the disk has no room, go on without."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        need, free = _bytes_of(model) + _SPARE_BYTES, shutil.disk_usage(cache).free
        if need > free:
            message = f"{cache} needs {need >> 20:,} MiB and has {free >> 20:,}: each start quantises the base again"
            note("base_cache_skipped", message)
            return
        with _alone(cache) as alone:
            if alone:
                _write(model, cache / key, described)
                _prune(cache)
    except (OSError, Failed) as error:
        note("base_cache_skipped", f"{error}: each start quantises the base again")


def _write(model: Any, folder: Path, described: dict[str, Any]) -> None:
    with new_folder(folder) as temporary:
        model.save_pretrained(temporary)
        manifest = {**described, "files": digest_folder(temporary)}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True))


def _bytes_of(model: Any) -> int:
    """Return the bytes of all tensors of a model, those of its quantisation included."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[bool]:
    """Yield whether no other process writes there; two devices may share a home."""
    with (cache / "lock").open("w") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _prune(cache: Path) -> None:
    """Keep the quantised bases that were used last, and nothing else."""
    folders = [path for path in cache.iterdir() if path.is_dir()]
    used = {path: (path / MANIFEST).stat().st_mtime for path in folders if _is_in_place(path)}
    kept = sorted(used, key=lambda path: used[path], reverse=True)[:KEPT]
    for path in folders:
        if path not in kept:
            log.info("%s is dropped", path, extra={"event": "base_cache_pruned"})
            shutil.rmtree(path, ignore_errors=True)


def _is_in_place(path: Path) -> bool:
    return not path.suffix and (path / MANIFEST).is_file()
