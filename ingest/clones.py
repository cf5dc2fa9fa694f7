"""A git repository as a tree of files: cloned bare and shallow, never checked out. Runs in the child process alone.

GitPython is used here and nowhere else, for the life of one repository: it leaks, and it parses what strangers wrote.
"""

import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import git

from ingest.box import squeeze
from ingest.entries import Entry, SourceFailed, no_commit, read_path, too_many_files
from ingest.sources import find_git_fault

_FETCH_OPTIONS = ("--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--quiet")
_MAX_LISTING_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 1 << 16
# The end of what git says tells why; a server may have sent a warning for each of a million paths before it.
_MAX_SAID_BYTES = 16_000
# A server that has more to say to a person than this is not going to send its code.
_MAX_HEARD_BYTES = 64 * 1024 * 1024
_LINK_MODE, _GITLINK_MODE, _EXECUTABLE_MODE = b"120000", b"160000", b"100755"

# A tree so deep that git's recursion ends in its stack, or at its own limit; it says so before what comes of it.
_TOO_DEEP = ("died of signal 11", "maximum allowed tree depth")
_NO_MEMORY = "out of memory"
_NO_SPACE = ("no space left on device", "disk quota exceeded")
# What git says when the network, a server or this machine failed it: whatever else it says then is a consequence.
_TRANSIENT = (
    "early eof",
    "unexpected disconnect",
    "rpc failed",
    "could not resolve",
    "the remote end hung up",
    "connection reset",
    "connection refused",
    "timed out",
)
# What git and the servers say when trying again would not help.
_PERMANENT = {
    "clone_too_large": re.compile("file too large"),
    "corrupt": re.compile("fsck error"),
    "protocol": re.compile("transport '[^']*' not allowed"),
    "no_access": re.compile("authentication failed|could not read username|terminal prompts disabled|error: 40[13]"),
    # 410 and 451: deleted, and taken down.
    "not_found": re.compile(
        "not found|does not exist|does not appear to be a git repository|no such file|error: 4(?:04|10|51)"
    ),
}


class Clone:
    """The newest commit of a repository, cloned for this visit."""

    def __init__(self, url: str, head: str, path: Path, *, max_file_bytes: int, max_entries: int) -> None:
        """Fetch one commit by its id: so no other reference is asked for, of which a server may name any number."""
        self.head: str | None = head
        self._max_entries = max_entries
        # The name of its hash is the only thing that git must know of a repository beforehand.
        self._repo = git.Repo.init(path, bare=True, object_format="sha256" if len(head) == 64 else "sha1")
        self._repo.create_remote("origin", url)
        self._fetch(url, f"--filter=blob:limit={max_file_bytes + 1}", "origin", head)
        # The blobs that the filter left out are absent from now on; git would ask its origin for each, or give up.
        self._repo.git.config("--local", "--remove-section", "remote.origin")

    def _fetch(self, url: str, *words: str) -> None:
        try:
            process = self._repo.git.fetch(*_FETCH_OPTIONS, *words, as_process=True)
        except git.UnsafeProtocolError as error:
            raise SourceFailed("protocol", "git would run a program for this URL", is_permanent=True) from error
        if "://" in url:
            squeeze(process.pid)
        said = _read_tail(process.stderr)
        try:
            process.wait()
        except git.GitCommandError as error:
            raise explain_clone(said, names=(url, str(self._repo.git_dir))) from error

    def list_entries(self) -> list[Entry]:
        """Return the files of the commit; a tree that unfolds without end is given up at the limit."""
        process = self._repo.git.ls_tree("-r", "-l", "-z", "--full-tree", self.head, as_process=True)
        entries: list[Entry] = []
        rest, num_bytes = b"", 0
        while chunk := process.stdout.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\0")
            entries.extend(map(_parse_line, lines))
            num_bytes += len(chunk)
            if len(entries) > self._max_entries or num_bytes > _MAX_LISTING_BYTES:
                raise too_many_files(self._max_entries)
        try:
            process.wait()
        except git.GitCommandError as error:
            raise _explain_listing(error) from error
        return entries

    def read(self, entry: Entry) -> bytes | None:
        """Return a blob's bytes; None when the filter or a broken server left it out."""
        try:
            return bytes(self._repo.git.get_object_data(entry.oid)[3])
        except ValueError:
            return None

    def reopen(self) -> None:
        """Read by a git process of our own; that of the process that we were forked from must outlive us."""
        self._forked_from = self._repo
        self._repo = git.Repo(self._repo.git_dir)

    def close(self) -> None:
        """End the git processes that serve the reads."""
        self._repo.close()


def find_local_head(path: str) -> str:
    """Return the newest commit of a local repository.

    Raises:
        SourceFailed: it has none, or is no repository that git would read.
    """
    if fault := find_git_fault(Path(path)):
        raise SourceFailed(*fault, is_permanent=True)
    try:
        said = str(git.Git().ls_remote("--", path, "HEAD"))
    except git.GitCommandError as error:
        raise explain_clone(str(error.stderr), names=(path,)) from error
    if not said:
        raise no_commit()
    return said.partition("\t")[0]


def _read_tail(stream: IO[bytes]) -> str:
    """Return the last of what git says, which is also the first that is kept of it.

    Raises:
        SourceFailed: it does not end.
    """
    tail, num_bytes = b"", 0
    while chunk := stream.read1(_CHUNK_BYTES):  # type: ignore[attr-defined]  # it is buffered
        tail = (tail + chunk)[-_MAX_SAID_BYTES:]
        num_bytes += len(chunk)
        if num_bytes > _MAX_HEARD_BYTES:
            raise SourceFailed("clone_failed", "the server sends messages without end", is_permanent=False)
    return tail.decode("utf-8", "replace")


def _parse_line(line: bytes) -> Entry:
    meta, _, raw_path = line.partition(b"\t")
    mode, _, oid, size = meta.split()
    path, reason = read_path(raw_path)
    if mode in (_LINK_MODE, _GITLINK_MODE):
        reason = "symlink" if mode == _LINK_MODE else "gitlink"
    elif not size.isdigit():
        # A blob that the size filter of the clone left on the server.
        reason = reason or "too_large"
    num_bytes = int(size) if size.isdigit() else 0
    return Entry(path, num_bytes, oid.decode(), is_executable=mode == _EXECUTABLE_MODE, reason=reason)


def explain_clone(stderr: str, *, names: Sequence[str] = ()) -> SourceFailed:
    """Return what a clone failed of by what git said, `names` (of source and target) apart: they may say anything."""
    said = stderr[-_MAX_SAID_BYTES:].strip()
    told = said.lower()
    for name in sorted(names, key=len, reverse=True):
        told = told.replace(name.lower(), "…")
    detail = " ".join(said.split())[-400:]
    # What the other side says of its own disk and processes is not ours, and it may say anything.
    ours = "\n".join(line for line in told.splitlines() if "remote: " not in line and "remote error: " not in line)
    if any(phrase in ours for phrase in _NO_SPACE):
        return SourceFailed("disk_full", detail, is_permanent=False)
    if _NO_MEMORY in ours:
        return SourceFailed("out_of_memory", detail, is_permanent=False)
    if any(phrase in ours for phrase in _TOO_DEEP):
        return SourceFailed("corrupt", detail, is_permanent=True)
    told = " ".join(told.split())
    if not any(phrase in told for phrase in _TRANSIENT):
        for reason, phrases in _PERMANENT.items():
            if phrases.search(told):
                return SourceFailed(reason, detail, is_permanent=True)
    return SourceFailed("clone_failed", detail, is_permanent=False)


def _explain_listing(error: git.GitCommandError) -> SourceFailed:
    if error.status == -signal.SIGSEGV:
        return SourceFailed("corrupt", "git breaks on the depth of its folders", is_permanent=True)
    return explain_clone(str(error.stderr))
