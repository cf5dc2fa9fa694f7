"""A local folder as a tree of files: no link is followed, nothing but plain files is opened, every walk ends."""

import os
import stat
from collections.abc import Iterator

from ingest.entries import Entry, SourceFailed, read_path, too_many_files
from sourcecode.paths import is_vendored

_MAX_DEPTH = 100
# The tools' own memory, not anybody's files.
_SKIPPED = frozenset({b".git", b".hg", b".svn", b"__pycache__"})


class Folder:
    """A folder that the operator named."""

    head = None

    def __init__(self, root: str, *, max_file_bytes: int, max_entries: int) -> None:
        self._root, self._max_entries, self._max_file_bytes = os.fsencode(root), max_entries, max_file_bytes
        self._check_root()

    def list_entries(self) -> list[Entry]:
        """Return the files in the order of their paths; a vendored folder is one refused entry, not walked."""
        entries: list[Entry] = []
        for entry in self._walk(b"", 0):
            entries.append(entry)
            if len(entries) > self._max_entries:
                raise too_many_files(self._max_entries)
        return sorted(entries, key=lambda entry: entry.path)

    def read(self, entry: Entry) -> bytes | None:
        """Return a file's bytes, of a large one the first, one more than are allowed; None when it is gone.

        Raises:
            SourceFailed: the whole folder is gone: that one of its files is, says nothing of the file.
        """
        try:
            with open(self._open(os.fsencode(entry.path)), "rb") as file:  # noqa: PTH123 - a descriptor
                is_plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                return file.read(self._max_file_bytes + 1) if is_plain else None
        except OSError:
            self._check_root()
            return None

    def reopen(self) -> None:
        """Nothing is open between two reads."""

    def _check_root(self) -> None:
        if not os.path.isdir(self._root):  # noqa: PTH112 - bytes: a folder's name need not be text
            raise SourceFailed("not_found", "the folder does not exist any more", is_permanent=True)

    def _open(self, path: bytes) -> int:
        """Open a file below the root without following a link in any part of its path."""
        *folders, name = path.split(b"/")
        at = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:
                below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
                os.close(at)
                at = below
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
        finally:
            os.close(at)

    def _walk(self, folder: bytes, depth: int) -> Iterator[Entry]:
        try:
            found = sorted(os.scandir(os.path.join(self._root, folder)), key=lambda item: item.name)  # noqa: PTH118
        except OSError as error:
            if not folder:
                raise SourceFailed("unreadable", f"the folder: {error.strerror}", is_permanent=False) from error
            yield Entry(read_path(folder)[0] + "/", 0, reason="unreadable")
            return
        for item in found:
            path = folder + b"/" + item.name if folder else item.name
            shown, reason = read_path(path)
            if item.is_dir(follow_symlinks=False):
                if reason == "path_length":
                    yield Entry(shown + "/", 0, reason=reason)
                else:
                    yield from self._walk_folder(path, shown, item.name, depth)
            else:
                yield _judge_item(item, shown, reason)

    def _walk_folder(self, path: bytes, shown: str, name: bytes, depth: int) -> Iterator[Entry]:
        if name in _SKIPPED:
            return
        if is_vendored(name.decode("ascii", "replace")) or self._is_environment(path):
            yield Entry(shown + "/", 0, reason="vendored")
        elif depth >= _MAX_DEPTH:
            yield Entry(shown + "/", 0, reason="nesting")
        else:
            yield from self._walk(path, depth + 1)

    def _is_environment(self, path: bytes) -> bool:
        """Say whether a folder is a virtual environment of Python's: its name may be anything."""
        return os.path.lexists(os.path.join(self._root, path, b"pyvenv.cfg"))  # noqa: PTH118 - bytes


def _judge_item(item: os.DirEntry[bytes], shown: str, reason: str | None) -> Entry:
    try:
        status = item.stat(follow_symlinks=False)
    except OSError:
        return Entry(shown, 0, reason="unreadable")
    if not stat.S_ISREG(status.st_mode):
        reason = "symlink" if stat.S_ISLNK(status.st_mode) else "special"
    return Entry(shown, status.st_size, is_executable=bool(status.st_mode & stat.S_IXUSR), reason=reason)
