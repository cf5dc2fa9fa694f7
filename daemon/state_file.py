"""The state file: a view of the database for people and older tools, never a source of truth (I3)."""

import hashlib
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.files import write_atomically
from monitoring import record
from schema import failpoints

log = logging.getLogger(__name__)
FORMAT_VERSION = 1


def refresh_state_file(path: Path, state: dict[str, Any]) -> bool:
    """Make the file at `path` say `state`; return whether it had to be written.

    A missing or stale file is replaced. One that this program did not write like that (cut short, or with any byte
    changed: it carries its own SHA-256) is set aside beside it and reported, never silently reset.
    """
    wanted = _serialise(state)
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        found = None
    if found == wanted:
        return False
    if found is not None and not _is_ours(found):
        _set_aside(path)
    failpoints.hit("state_file.before_rename")
    write_atomically(path, wanted)
    return True


def _serialise(state: dict[str, Any]) -> bytes:
    document = json.loads(json.dumps({"format_version": FORMAT_VERSION, **state}, default=str))
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**document, "sha256": digest}, indent=2, sort_keys=True) + "\n").encode()


def _is_ours(found: bytes) -> bool:
    try:
        document = json.loads(found)
    except ValueError:
        return False
    if not isinstance(document, dict):
        return False
    return _serialise({k: v for k, v in document.items() if k not in {"sha256", "format_version"}}) == found


def _set_aside(path: Path) -> None:
    aside = path.with_name(f"{path.name}.bad-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    path.rename(aside)
    record.record_damaged_state_file()
    log.warning(
        "the state file was damaged; it was set aside and is rebuilt from the database",
        extra={"event": "state_file_set_aside", "path": str(path), "kept_as": aside.name},
    )
