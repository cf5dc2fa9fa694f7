"""A tree of files as both kinds of source show it: entries to look at, and a way to read one of them."""

import errno
from dataclasses import dataclass
from typing import Protocol

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# An index of PostgreSQL takes 2,700 bytes of a row; no build tool takes more than this.
_MAX_PATH_BYTES = 1024


class SourceFailed(Exception):
    """A source that cannot be visited; `reason` is one short word for row, log and metric."""

    def __init__(self, reason: str, detail: str, *, is_permanent: bool) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.is_permanent = reason, detail, is_permanent


@dataclass(frozen=True, slots=True)
class Entry:
    """One file. With a reason it is refused unread; `oid` is empty where git does not know the file."""

    path: str
    num_bytes: int
    oid: str = ""
    is_executable: bool = False
    reason: str | None = None


class Tree(Protocol):
    """Where the files of one source are listed and read."""

    @property
    def head(self) -> str | None:
        """The commit that is read; None outside git."""

    def list_entries(self) -> list[Entry]:
        """Return every file; raises SourceFailed when there are too many."""

    def read(self, entry: Entry) -> bytes | None:
        """Return a file's bytes, None when it is gone or is no plain file any more."""

    def reopen(self) -> None:
        """Share nothing with the process that this one was forked from."""


def read_path(raw: bytes) -> tuple[str, str | None]:
    """Return a path as printable text, and why its file is refused: the path is no UTF-8, not printable, too long.

    What cannot be shown is shown by backslashes, what is too long without its end.
    """
    if len(raw) > _MAX_PATH_BYTES:
        return show_text(raw[:_MAX_PATH_BYTES].decode("utf-8", "backslashreplace")) + "…", "path_length"
    try:
        path = raw.decode("utf-8")
    except UnicodeDecodeError:
        return show_text(raw.decode("utf-8", "backslashreplace")), "path_encoding"
    return show_text(path), None if path.isprintable() else "path_encoding"


def show_text(text: str) -> str:
    """Return what a stranger wrote as a terminal may show it: no control, no change of direction, no line break."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def too_many_files(max_entries: int) -> SourceFailed:
    """Return the failure of a source with more entries than the limit."""
    return SourceFailed("too_many_files", f"more than {max_entries} entries", is_permanent=True)


def no_commit() -> SourceFailed:
    """Return the failure of a repository without a commit, or whose HEAD names none."""
    return SourceFailed("empty", "the repository has no commit", is_permanent=True)


def is_disk_full(error: BaseException) -> bool:
    """Say whether a visit ended because there was no space: here, in its child or in git."""
    if isinstance(error, SourceFailed):
        return error.reason == "disk_full"
    return isinstance(error, OSError) and error.errno in _NO_SPACE
