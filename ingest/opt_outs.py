"""Opt-outs as people write them: owner/name or a glob, one a line, and what they apply to."""

import logging
import re
import threading
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from ingest.sources import Source, SourceError
from schema.opt_outs import Removed, add_opt_outs, fetch_opt_outs, fetch_paths, is_opted_out, remove_repositories

log = logging.getLogger(__name__)
_PATTERN = re.compile(r"[\w.*?\[\]!-]+/[\w.*?\[\]!/-]+")


def read_patterns(files: Sequence[Path]) -> list[str]:
    """Return the patterns of opt-out files; empty lines and what follows a # do not count.

    Raises:
        SourceError: a file cannot be read, or a line is no pattern; it is named.
    """
    found = []
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{file}: cannot be read ({error}); give a text file with owner/name lines") from error
        for number, line in enumerate(lines, start=1):
            if text := line.partition("#")[0].strip():
                found.append(check_pattern(text, f"{file}:{number}: "))
    return found


def check_pattern(text: str, place: str = "") -> str:
    """Return a pattern in lower case; an address stands for what it is the address of.

    Raises:
        SourceError: it is none.
    """
    pattern = re.sub(r"^https?://[^/]+/|(\.git)?/?$", "", text.strip()).lower()
    if not _PATTERN.fullmatch(pattern):
        raise SourceError(f"{place}{text!r} is no opt-out: write owner/name, or a glob such as owner/*")
    return pattern


def is_source_opted_out(source: Source, patterns: Sequence[str]) -> bool:
    """Say whether a source, where it is a remote one, is opted out."""
    return source.host is not None and is_opted_out(source.source.partition("://")[2].partition("/")[2], patterns)


def apply_opt_outs(conn: sa.Connection, patterns: Sequence[str] = ()) -> Removed:
    """Record patterns, and take out whatever fits these or earlier ones."""
    add_opt_outs(conn, patterns)
    known = fetch_opt_outs(conn)
    ids = sorted({repository_id for repository_id, path in fetch_paths(conn) if is_opted_out(path, known)})
    return remove_repositories(conn, ids) if ids else Removed(0, 0, 0)


class OptOutFiles:
    """The configured opt-out files, applied when a process begins and whenever one has changed; threads share it."""

    def __init__(self, engine: sa.Engine, files: Sequence[Path]) -> None:
        self._engine, self._files = engine, files
        self._seen: list[tuple[int, ...] | None] | None = None
        self._holds = True
        self._lock = threading.Lock()

    def look(self) -> bool:
        """Apply the files if one has changed; return whether they could be read: else nothing new is to be taken."""
        with self._lock:
            seen = [_identify(file) for file in self._files]
            if seen != self._seen:
                self._apply()
                self._seen = seen
            return self._holds

    def _apply(self) -> None:
        try:
            patterns = read_patterns(self._files)
        except SourceError as error:
            self._holds = False
            log.error("nothing is taken until this is mended: %s", error, extra={"event": "opt_outs_unreadable"})
            return
        with self._engine.begin() as conn:
            removed = apply_opt_outs(conn, patterns)
        self._holds = True
        if removed.num_repositories or removed.num_files:
            words = f"{removed.num_repositories} sources, {removed.num_files} files"
            log.info("opted out, and taken out: %s", words, extra={"event": "opted_out"})


def _identify(file: Path) -> tuple[int, ...] | None:
    """Return what changes with a file's content."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
