"""Text to train on that is not in the database: a folder of files, or a file of JSON lines."""

import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from daemon.job import Item
from sourcecode.languages import detect_language


class CorpusError(ValueError):
    """The text cannot be read; the message says where, and what is expected."""


def first_chars(items: Iterable[Item], num_chars: int) -> Iterator[Item]:
    """Yield items until they have so many characters together."""
    for item in items:
        yield item
        num_chars -= len(item.content)
        if num_chars <= 0:
            return


def read_corpus(path: Path) -> Iterator[Item]:
    """Yield what is to be learned: a folder's UTF-8 files in the order of a hash, a file's objects in their own.

    Names that begin with a dot, symbolic links and files that are not UTF-8 are left out.

    Raises:
        CorpusError: nothing is there, or a line is not an object with a text.
    """
    found = _read_folder(path) if path.is_dir() else _read_lines(path)
    num = 0
    for num, (name, text) in enumerate(found, 1):
        yield Item(
            ordinal=num - 1,
            item_id=num,
            role="base",
            content=text,
            sha256=sha256(text.encode()).hexdigest(),
            language=detect_language(name, text) or "Text",
            path=name,
            repository=str(path),
            unit=name,
        )
    if not num:
        raise CorpusError(f"{path}: there is no text in it: give a folder of UTF-8 files or a JSON-lines file")


def _read_folder(folder: Path) -> Iterator[tuple[str, str]]:
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    for name in sorted(shown, key=lambda name: sha256(str(name).encode()).digest()):
        try:
            text = (folder / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            yield str(name), text


def _read_lines(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                told = json.loads(line)
                text = told["content"] if "content" in told else told["text"]
                name = str(told.get("path", f"{path.name}:{number}"))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CorpusError(
                    f"{path}, line {number}: expected a JSON object with `content` or `text`, and maybe `path`"
                ) from error
            if not isinstance(text, str):
                raise CorpusError(f"{path}, line {number}: its text is a {type(text).__name__}: expected a string")
            if text.strip():
                yield name, text
