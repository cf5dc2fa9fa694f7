"""Measure the search, and a backup and its restore, on a large database: a million files, 300,000 contents.

`python -m tests.bench.search [--json] [--files 1000000] [--contents 300000] [--restore]`, on a durable server of our
own in a temporary home. A content is 160 words of a vocabulary of 50,000 of which the n-th is as frequent as 1/n, so
that some stand in most files and most in a few hundred; the other files are older versions whose contents were dropped.
Each kind of query is asked 100 times with other words, after ten that do not count. Milliseconds are those of a caller
on the wall, 20 hits with their snippets included.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psycopg
import sqlalchemy as sa

from schema.backup import make_backup
from schema.backup_restore import restore_backup
from schema.database import create_engine, upgrade
from schema.embedded import open_server
from schema.lines import open_line
from schema.search import search
from schema.search_words import make_tags, name_word, to_vector

NUM_WORDS, WORDS_PER_FILE, NUM_NAMES = 50_000, 160, 8
FILES_PER_REPOSITORY = 300
NUM_QUERIES, NUM_WARM = 100, 10
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
_FREQUENT = list(accumulate(1 / rank for rank in range(1, NUM_WORDS + 1)))
_REPOSITORIES = """
    INSERT INTO repositories (source, kind, origin, name, state)
    SELECT 'https://example.org/owner/' || n, 'git', 'operator', n::text, 'done' FROM generate_series(1, :num) AS n
"""
_FILES = """
    COPY processed_files (repository_id, file_path, blob_oid, language, content, content_sha256, num_chars, num_lines,
        quality_score, score_detail, scorer_version, owner, unit, split, excluded_reason) FROM STDIN
"""
_ENTRIES = "COPY search_entries (kind, item_id, repository_id, score, words) FROM STDIN"


def name_of(number: int) -> str:
    """Return the word of a rank: other syllables for each."""
    word = ""
    while number or not word:
        number, place = divmod(number, len(_SYLLABLES))
        word += _SYLLABLES[place]
    return word + "x" if len(word) < 4 else word


VOCABULARY = [name_of(number) for number in range(1, NUM_WORDS + 1)]


def fill(engine: sa.Engine, *, num_files: int, num_contents: int) -> None:
    """Fill the tables as ingest and the index would, without either: files, their queue rows, and their words."""
    chance = random.Random(1)
    contents = [chance.choices(VOCABULARY, cum_weights=_FREQUENT, k=WORDS_PER_FILE) for _ in range(num_contents)]
    scores = [round(40 + 60 * chance.random(), 2) for _ in contents]
    with engine.begin() as conn:
        conn.execute(sa.text(_REPOSITORIES), {"num": num_files // FILES_PER_REPOSITORY + 1})
        first = conn.execute(sa.text("SELECT min(id) FROM repositories")).scalar_one()
        driver = conn.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        with driver.cursor() as cursor:
            with cursor.copy(_FILES) as copy:
                for row in _file_rows(contents, scores, num_files=num_files, first=first):
                    copy.write_row(row)
            ids = cursor.execute("SELECT id, repository_id FROM processed_files ORDER BY id").fetchall()
            with cursor.copy(_ENTRIES) as copy:
                for words, score, (file_id, repository_id) in zip(contents, scores, ids, strict=False):
                    copy.write_row(("file", file_id, repository_id, score, to_vector(_index_words(words, file_id))))
        open_line(conn, name="bench", base_model="base")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(sa.text("SET statement_timeout = 0"))
        conn.execute(sa.text("VACUUM ANALYZE"))


def _file_rows(
    contents: list[list[str]], scores: list[float], *, num_files: int, first: int
) -> Iterator[tuple[Any, ...]]:
    for number in range(num_files):
        has_content = number < len(contents)
        text = _write(contents[number]) if has_content else None
        unit, split = f"unit_{number % 5000}", "test" if number % 20 == 0 else "train"
        score, state = (scores[number], None) if has_content else (50.0, "superseded")
        repository = first + number // FILES_PER_REPOSITORY
        place = (repository, f"src/file_{number}.py", f"{number:040x}", "python", text, f"{number:064x}")
        yield *place, 2000, 40, score, "{}", 1, f"owner_{number % 500}", unit, split, state


def _write(words: list[str]) -> str:
    """Return text of some words that looks like code: functions named by the first of them."""
    lines = [f"def {word}(self):" for word in words[:NUM_NAMES]]
    lines += [f"    {a} = {b}({c}, {d})" for a, b, c, d in zip(*(words[place::4] for place in range(4)), strict=True)]
    return "\n".join(lines)


def _index_words(words: list[str], number: int) -> list[str]:
    names = [*words[:NUM_NAMES], f"file_{number}"]
    return list(dict.fromkeys([*make_tags("file", "python", None), *words, *names, *map(name_word, names)]))


def kinds_of_query(chance: random.Random) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what people ask, by its kind: how frequent the words are (their ranks), how many, and what else."""

    def word(least: int, most: int) -> str:
        return VOCABULARY[chance.randint(least, most) - 1]

    return {
        "the ten most frequent words": lambda: {"query": word(1, 10)},
        "frequent (rank 10 to 300)": lambda: {"query": word(10, 300)},
        "middling (300 to 5,000)": lambda: {"query": word(300, 5_000)},
        "rare (5,000 and above)": lambda: {"query": word(5_000, NUM_WORDS)},
        "two frequent": lambda: {"query": f"{word(10, 300)} {word(10, 300)}"},
        "frequent and rare": lambda: {"query": f"{word(1, 10)} {word(5_000, NUM_WORDS)}"},
        "three middling": lambda: {"query": " ".join(word(300, 5_000) for _ in range(3))},
        "frequent, in a language": lambda: {"query": word(10, 300), "language": "python"},
        "frequent, held out": lambda: {"query": word(10, 300), "state": "held_out"},
        "frequent without another": lambda: {"query": f"{word(1, 10)} -{word(10, 300)}"},
        "beginning": lambda: {"query": f"{word(300, 5_000)[:4]}*"},
    }


def time_queries(engine: sa.Engine) -> dict[str, dict[str, float]]:
    """Ask each kind of query; return the median, 95th percentile and longest time of each (ms), and of all."""
    chance = random.Random(2)
    times: dict[str, list[float]] = {}
    for kind, make in kinds_of_query(chance).items():
        for number in range(NUM_WARM + NUM_QUERIES):
            asked = make()
            start = time.perf_counter()
            with engine.begin() as conn:
                search(conn, **asked)
            if number >= NUM_WARM:
                times.setdefault(kind, []).append(1e3 * (time.perf_counter() - start))
    times["all"] = [one for some in times.values() for one in some]
    figures = {"median_ms": median, "p95_ms": lambda some: quantiles(some, n=20)[-1], "max_ms": max}
    return {kind: {name: round(figure(some), 1) for name, figure in figures.items()} for kind, some in times.items()}


def time_restore(engine: sa.Engine, home: Path, url: str) -> dict[str, float]:
    """Make a backup, restore it into an empty database; return the seconds of both and the backup's bytes."""
    start = time.perf_counter()
    backup = make_backup(engine, home / "backup.zip", show=lambda *_: None)
    made = time.perf_counter()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(sa.text("CREATE DATABASE restored"))
    other = create_engine(
        sa.make_url(url).set(database="restored").render_as_string(hide_password=False),
        application_name="bench",
        statement_timeout_s=0,
    )
    try:
        restored = restore_backup(other, backup.file, replace=False, show=lambda *_: None)
    finally:
        other.dispose()
    assert restored.report.rows_unaccounted == 0
    seconds = {"backup_s": round(made - start, 1), "restore_s": round(time.perf_counter() - made, 1)}
    return {**seconds, "backup_bytes": backup.num_bytes}


def measure(home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Fill a database and measure on it."""
    with open_server(home / "server", purpose="bench", grace_s=0.0) as server:
        engine = create_engine(server.url, application_name="bench", statement_timeout_s=0)
        try:
            upgrade(engine)
            start = time.perf_counter()
            fill(engine, num_files=options.files, num_contents=options.contents)
            filled_s = round(time.perf_counter() - start, 1)
            found = {"files": options.files, "contents": options.contents, "fill_s": filled_s}
            found["queries"] = time_queries(engine)
            return found | (time_restore(engine, home, server.url) if options.restore else {})
        finally:
            engine.dispose()


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--contents", type=int, default=300_000)
    parser.add_argument("--restore", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        print(json.dumps(measure(Path(home), options), indent=None if options.json else 2))


if __name__ == "__main__":
    main()
