"""Which language a file is written in, by its name, its first line and, where names lie, its content."""

import re
from collections.abc import Collection

from sourcecode.further import EXTENSIONS as FURTHER_EXTENSIONS

LANGUAGES = ("python", "go", "rust", "typescript", "javascript", "dart")

EXTENSIONS = {
    ".py": "python",
    ".pyi": "python",
    ".pyw": "python",
    ".go": "go",
    ".rs": "rust",
    ".ts": "typescript",
    ".tsx": "typescript",
    ".mts": "typescript",
    ".cts": "typescript",
    ".js": "javascript",
    ".jsx": "javascript",
    ".mjs": "javascript",
    ".cjs": "javascript",
    ".dart": "dart",
}

# The program that a script names in its first line: `#!/usr/bin/env -S python3.11 -u` is Python.
_SHEBANG = re.compile(rb"#![ \t]*\S*?/?(?:env[ \t]+(?:-\S+[ \t]+|\w+=\S*[ \t]+)*)?([A-Za-z]+)[\d.]*(?:[ \t]|$)")
_INTERPRETERS = {
    b"python": "python",
    b"pypy": "python",
    b"node": "javascript",
    b"nodejs": "javascript",
    b"deno": "typescript",
    b"bun": "typescript",
    b"tsx": "typescript",
    b"dart": "dart",
}
# Qt Linguist writes translations, and video recorders MPEG transport streams, into files named *.ts.
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|!DOCTYPE\s+TS\b|TS[\s>])")
_MPEG_PACKET_BYTES = 188
_MPEG_SYNC = 0x47


def file_extension(path: str) -> str:
    """Return the lower-case extension with its dot, empty without one (`.eslintrc` has none)."""
    # As pathlib does it, in a tenth of the time: every path of a tree comes here.
    name = path.rstrip("/").rpartition("/")[2]
    dot = name.rfind(".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""


def detect_language(
    path: str, content: bytes | str | None = None, *, languages: Collection[str] = LANGUAGES
) -> str | None:
    """Return one of LANGUAGES, or of further ones among `languages`, or None; without content the name decides."""
    head = content[:1024].encode("utf-8", "replace") if isinstance(content, str) else (content or b"")[:1024]
    further = FURTHER_EXTENSIONS.get(file_extension(path))
    if further in languages:
        return further
    language = EXTENSIONS.get(file_extension(path))
    if language is None:
        return None if file_extension(path) else _language_of_shebang(head)
    if language == "typescript" and (_XML.match(head) or _is_mpeg(head)):
        return None
    return language


def _language_of_shebang(head: bytes) -> str | None:
    found = _SHEBANG.match(head.partition(b"\n")[0].rstrip(b"\r"))
    return _INTERPRETERS.get(found[1].lower()) if found else None


def _is_mpeg(head: bytes) -> bool:
    return len(head) > _MPEG_PACKET_BYTES and head[0] == _MPEG_SYNC and head[_MPEG_PACKET_BYTES] == _MPEG_SYNC
