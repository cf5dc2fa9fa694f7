"""A tree of files as both kinds of source show it: entries to look at, and a way to read one of them."""

from dataclasses import dataclass
from typing import Protocol


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


def show_path(raw: bytes) -> tuple[str, bool]:
    """Return a path as text and whether it is valid UTF-8; what is not is shown by backslashes."""
    try:
        return raw.decode("utf-8"), True
    except UnicodeDecodeError:
        return raw.decode("utf-8", "backslashreplace"), False


def too_many_files(max_entries: int) -> SourceFailed:
    """Return the failure of a source with more entries than the limit."""
    return SourceFailed("too_many_files", f"more than {max_entries} entries", is_permanent=True)
