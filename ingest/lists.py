"""Lists of sources: a line each, or CSV with the columns source, licence and priority."""

import csv
from dataclasses import dataclass
from pathlib import Path

from ingest.sources import Source, SourceError, normalise_source

_COLUMNS = ("source", "licence", "priority")


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a list; what is None is for the command to say."""

    source: Source
    licence: str | None
    priority: int | None


def read_list(file: Path) -> list[Listed]:
    """Return a list's sources; empty lines and what follows a # do not count.

    Raises:
        SourceError: it cannot be read, or an entry is no source; all that is wrong is said, with the lines.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{file}: cannot be read ({error}); give a text or CSV file in UTF-8") from error
    kept = [(number, text) for number, line in enumerate(lines, start=1) if (text := line.partition("#")[0].strip())]
    columns = [name.strip().lower() for name in kept[0][1].split(",")] if kept else []
    is_csv = columns[:1] == ["source"]
    if is_csv and not set(columns) <= set(_COLUMNS):
        raise SourceError(f"{file}: unknown columns in {kept[0][1]!r}; the header is {','.join(_COLUMNS)}")
    found, wrong = [], []
    for number, text in kept[is_csv:]:
        try:
            found.append(_read_row(text, columns if is_csv else ["source"], is_csv=is_csv))
        except (SourceError, ValueError) as error:
            wrong.append(f"{file}:{number}: {error}")
    if wrong:
        raise SourceError("\n".join(wrong))
    return found


def _read_row(text: str, columns: list[str], *, is_csv: bool) -> Listed:
    values = next(csv.reader([text])) if is_csv else [text]
    if len(values) > len(columns):
        raise ValueError(f"{len(values)} values for {len(columns)} columns; put quotes around what has a comma")
    row = {name: value.strip() for name, value in zip(columns, values, strict=False)}
    priority = row.get("priority") or None
    if priority is not None and not priority.lstrip("-").isdecimal():
        raise ValueError(f"priority {priority!r} is no whole number")
    return Listed(
        normalise_source(row["source"]), row.get("licence") or None, None if priority is None else int(priority)
    )
