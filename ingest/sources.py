"""What an operator may name as a source, in one canonical form, so that adding it twice is adding it once."""

import os
import re
import stat
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ingest.entries import read_path, show_text
from schema.addresses import BadAddress, parse_address

_SCP_LIKE = re.compile(r"[\w.-]+@[\w.-]+:(?!//)")
# What git takes for a repository; a folder that is none makes it look at the neighbours.
_HEAD = re.compile(rb"(?:ref:\s*refs/\S+|[0-9a-f]{40}(?:[0-9a-f]{24})?)\s*")
_MAX_HEAD_BYTES = 1000
_NAME_ONE = "name an existing folder, git repository or https:// URL"
_LENT = ("objects/info/alternates", "commondir")


class SourceError(Exception):
    """A source that cannot be used; the message names it and says what would do."""


@dataclass(frozen=True, slots=True)
class Source:
    """A place of files: `source` is a URL or an absolute path, `kind` is git or folder."""

    source: str
    kind: str
    name: str
    host: str | None = None
    owner: str | None = None
    licence: str | None = None


def standard_library() -> Source:
    """Return the running Python's standard library: real code that every machine has."""
    path = Path(sysconfig.get_path("stdlib")).resolve()
    return Source(source=str(path), kind="folder", name=_standard_library_name(), owner="python", licence="PSF-2.0")


def normalise_source(text: str) -> Source:
    """Return the source that a person named by a folder, a local git repository or a git URL.

    Raises:
        SourceError: it does not exist, or its form is not supported.
    """
    try:
        return _normalise(text)
    except (ValueError, RuntimeError, OSError) as error:  # of a URL's parts, of ~nobody, of a name that is too long
        why = error.strerror if isinstance(error, OSError) else show_text(str(error).rstrip("."))
        raise SourceError(f"{_shown(text)}: {why}; {_NAME_ONE}") from error


def _normalise(text: str) -> Source:
    if text.startswith("file://"):
        url = urlsplit(text)
        if url.netloc not in ("", "localhost") or not url.path:
            raise SourceError(f"{_shown(text)}: not a folder of this machine; use file:///path")
        return _local_source(Path(unquote(url.path)))
    if _SCP_LIKE.match(text) or text.startswith(("ssh://", "git://", "git@")):
        raise SourceError(f"{_shown(text)}: only https, http and local sources are read; use the https:// address")
    if "://" in text or "::" in text:
        return _remote_source(text)
    if not text.strip():
        raise SourceError(f"an empty source; {_NAME_ONE}")
    return _local_source(Path(text).expanduser())


def source_key(source: str) -> str:
    """Return the part of a split unit's name that stands for the source; the same on every machine where it can be."""
    library = standard_library()
    return library.name if source == library.source else source.partition("://")[2] or source


def _local_source(path: Path) -> Source:
    if not path.exists():
        raise SourceError(f"{_shown(str(path))}: no such folder; {_NAME_ONE}")
    if not path.is_dir():
        raise SourceError(
            f"{_shown(str(path))}: not a folder; name the folder or git repository that contains the file"
        )
    path = path.resolve()
    library = standard_library()
    if str(path) == library.source:
        return library
    if read_path(os.fsencode(path))[1]:
        raise SourceError(f"{_shown(str(path))}: the path is no printable UTF-8 of at most 1024 bytes; rename it")
    kind = "git" if is_git_repository(path) else "folder"
    if kind == "git" and (fault := find_git_fault(path)):
        raise SourceError(f"{_shown(str(path))}: {fault[1]}")
    return Source(source=str(path), kind=kind, name=path.name.removesuffix(".git") or "root")


def is_git_repository(path: Path) -> bool:
    """Say whether a folder is the top of a work tree, or a bare repository; nothing of it is run or read by git."""
    is_bare = (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()
    return os.path.lexists(path / ".git") or is_bare


def find_git_fault(path: Path) -> tuple[str, str] | None:
    """Return (reason, detail) against a local repository that is none, or whose files lie outside its folder, or None.

    Git follows a `.git` that is a file, links and borrowed objects: what it would serve then is another repository's.
    """
    folder = path / ".git" if os.path.lexists(path / ".git") else path
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return "linked_git", (
                "its .git is a file or a link, as in worktrees and submodules; name the main repository instead"
            )
        for name in _LENT:
            if os.path.lexists(folder / name):
                return "linked_git", f"{folder.name}/{name} borrows from another repository; name that one instead"
        if link := _find_link(folder):
            return "linked_git", f"{link.relative_to(path)} is a link out of the repository; name the main one instead"
        is_whole = (folder / "refs").is_dir() and (folder / "objects").is_dir() and _is_head(folder / "HEAD")
    except OSError as error:
        return "unreadable", f"git's own files cannot be looked at ({error.strerror}); check who may read them"
    return None if is_whole else ("not_found", f"{folder.name} is no git repository; run git init or remove it")


def _find_link(folder: Path) -> Path | None:
    """Return a link, or what is neither file nor folder, among the files from which git serves history."""
    for name in ("HEAD", "packed-refs", "objects", "refs", "reftable", "shallow"):
        if (folder / name).is_symlink():
            return folder / name
    for name in ("objects", "refs", "reftable"):
        pending = [folder / name] if (folder / name).exists() else []
        while pending:
            with os.scandir(pending.pop()) as found:
                for item in found:
                    if item.is_dir(follow_symlinks=False):
                        pending.append(Path(item.path))
                    elif not item.is_file(follow_symlinks=False):
                        return Path(item.path)
    return None


def _is_head(path: Path) -> bool:
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    with path.open("rb") as file:
        return _HEAD.fullmatch(file.read(_MAX_HEAD_BYTES)) is not None


def _remote_source(text: str) -> Source:
    try:
        address = parse_address(text)
    except BadAddress as error:
        raise SourceError(f"{_without_credentials(text)}: {error}") from error
    return Source(source=address.url, kind="git", host=address.host, owner=address.owner, name=address.name)


def _without_credentials(text: str) -> str:
    url = urlsplit(text)
    return f"{url.scheme}://…@{url.hostname}" if url.username or url.password else _shown(text)


def _standard_library_name() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def _shown(text: str) -> str:
    printable = show_text(os.fsencode(text).decode("utf-8", "backslashreplace"))
    return printable if len(printable) <= 200 else printable[:200] + "…"
