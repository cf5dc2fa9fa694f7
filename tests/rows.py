"""Rows for processes under test, the same in every database, and what the database says of them afterwards."""

import contextlib
from collections.abc import Iterator
from typing import Any

from schema.audit import audit
from schema.database import create_engine
from schema.files import save_files
from schema.lines import fetch_line
from schema.runs import Run, fetch_runs
from tests.builders import claim_source, finish, make_file


def store_rows(
    database_url: str, num: int = 30, *, first: int = 0, num_test: int = 12, poison: int | None = None
) -> None:
    """Store `num` rows to train on and `num_test` held-out ones, the same in every database for the same `first`.

    Row number `poison` contains the word POISON.
    """
    with opened(database_url) as engine, engine.begin() as conn:
        claim = claim_source(conn, f"/sources/rows-{first}")
        words = {number: "POISON" if number == poison else "plain" for number in range(first, first + num)}
        files = [_file(f"src_{number}/code.py", number, word) for number, word in words.items()]
        held_out = range(first, first + num_test)
        files += [_file(f"held_{number}/code.py", 1_000_000 + number, "plain", split="test") for number in held_out]
        save_files(conn, claim, files)
        finish(conn, claim)


def _file(path: str, number: int, word: str, **values: Any) -> Any:
    content = f"def function_{number}(argument):\n    text = '{word} {number}'\n    return text, argument + {number}\n"
    return make_file(path, content, **values)


@contextlib.contextmanager
def opened(database_url: str) -> Iterator[Any]:
    """Yield an engine of one connection."""
    engine = create_engine(database_url, application_name="tests", pool_size=1)
    try:
        yield engine
    finally:
        engine.dispose()


def runs_of(database_url: str, line: str = "tiny") -> list[Run]:
    """Return the runs of a line, newest first; none while the line is not open."""
    with opened(database_url) as engine, engine.connect() as conn:
        found = fetch_line(conn, line)
        return [] if found is None else fetch_runs(conn, found.id, limit=100)


def audit_of(database_url: str) -> Any:
    """Return the row accounting."""
    with opened(database_url) as engine, engine.connect() as conn:
        return audit(conn)
