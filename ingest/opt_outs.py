"""Opt-outs as people write them: owner/name or a glob, one a line, and what they apply to."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import sqlalchemy as sa

from ingest.sources import Source, SourceError
from schema.opt_outs import Removed, add_opt_outs, fetch_opt_outs, fetch_paths, remove_repositories

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


def is_opted_out(path: str, patterns: Sequence[str]) -> bool:
    """Say whether owner/name fits one of the patterns."""
    return any(fnmatchcase(path.lower(), pattern) for pattern in patterns)


def is_source_opted_out(source: Source, patterns: Sequence[str]) -> bool:
    """Say whether a source, where it is a remote one, is opted out."""
    return source.host is not None and is_opted_out(source.source.partition("://")[2].partition("/")[2], patterns)


def apply_opt_outs(conn: sa.Connection, patterns: Sequence[str] = ()) -> Removed:
    """Record patterns, and take out whatever fits these or earlier ones."""
    add_opt_outs(conn, patterns)
    known = fetch_opt_outs(conn)
    ids = sorted({repository_id for repository_id, path in fetch_paths(conn) if is_opted_out(path, known)})
    return remove_repositories(conn, ids) if ids else Removed(0, 0, 0)
