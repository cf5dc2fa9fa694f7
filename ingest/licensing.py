"""The licences of one source: what the operator, its files and GitHub say, folder by folder."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from ingest.entries import Entry
from schema.evidence import NAMED
from sourcecode.licences import Licence, detect_licence, is_licence_name

_MAX_FILES, _MAX_IN_FOLDER, _MAX_BYTES = 400, 8, 200_000
_NONE = Licence(None, "no licence file")
# GitHub's word for a licence that it does not know.
UNKNOWN = ("", "NOASSERTION")


def find_repository(folder: Path) -> Path | None:
    """Return the nearest git repository that a folder (absolute) is or lies in, None outside of any."""
    return next((above for above in (folder, *folder.parents) if (above / ".git").exists()), None)


def find_licence(file: Path) -> Licence:
    """Return what the folders of a file on disk say, up to the one that is a git repository; else its own alone."""
    own = file.parent.resolve()
    top = find_repository(own) or own
    for folder in (own, *own.parents):
        names = (path for path in sorted(folder.iterdir()) if is_licence_name(path.name) and path.is_file())
        texts = {path.name: path.read_text(errors="replace")[:_MAX_BYTES] for path in list(names)[:_MAX_IN_FOLDER]}
        if texts:
            return detect_licence(texts)
        if folder == top:
            break
    return _NONE


class Licences:
    """The licence of every folder of a source: that of its own licence files, else its parent's."""

    def __init__(self, named: str | None, api: str | None) -> None:
        self._named = Licence(named, NAMED) if named else None
        self._api = Licence(api, f"GitHub: {api}") if api and api not in UNKNOWN else None
        self._folders: dict[PurePosixPath, Licence] = {}

    @property
    def root(self) -> Licence:
        """The licence of the repository."""
        return self.find("")

    def read(self, entries: Iterable[Entry], wanted: Sequence[str], read_text: Callable[[Entry], str]) -> None:
        """Read the licence files of the folders that the `wanted` paths lie in, the outer ones first."""
        if self._named:
            return
        needed = {parent for path in wanted for parent in PurePosixPath(path).parents} | {PurePosixPath()}
        files = [e for e in entries if is_licence_name(e.path) and not e.reason and e.num_bytes < _MAX_BYTES]
        by_folder: dict[PurePosixPath, dict[str, str]] = {}
        for entry in sorted(files, key=lambda entry: (entry.path.count("/"), entry.path))[:_MAX_FILES]:
            if (folder := PurePosixPath(entry.path).parent) in needed:
                by_folder.setdefault(folder, {})[entry.path] = read_text(entry)
        for folder, texts in by_folder.items():
            found = detect_licence(texts)
            # A NOTICE of something else, somewhere inside, does not take the repository's licence away.
            if found.expression or not folder.parts or any("licen" in text.lower() for text in texts.values()):
                self._folders[folder] = found

    def find(self, path: str) -> Licence:
        """Return the licence of what lies at a path, as far as its folders say."""
        if self._named:
            return self._named
        parents = PurePosixPath(path).parents or (PurePosixPath(),)
        nearest = next((self._folders[folder] for folder in parents if folder in self._folders), _NONE)
        # GitHub speaks of the root's text alone; where that was recognised here, the text itself is the evidence.
        is_root = nearest is self._folders.get(PurePosixPath(), _NONE)
        return self._api if self._api and is_root and nearest.expression is None else nearest
