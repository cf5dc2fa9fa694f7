"""Measure what near-duplicate detection adds to saving: batches with and without bands in turn, nothing alike in them.

`python -m tests.bench.saving TREE... [--json]`. On a server of its own with one line and 50,000 indexed files.
"""

import argparse
import json
import random
import re
import tempfile
import time
import zlib
from pathlib import Path
from statistics import median

import sqlalchemy as sa

from schema import files
from schema.database import create_engine, upgrade
from schema.embedded import open_server
from schema.lines import open_line
from schema.near_duplicates import NearRule
from schema.repositories import Claim
from sourcecode.near_duplicates import make_bands, similarity
from tests.bench.near_duplicates import read_texts
from tests.builders import claim_source, make_file

BATCH_ROWS = 200
NUM_ROUNDS = 25
NUM_STORED = 50_000
MAX_CHARS = 20_000
_RULE = NearRule(threshold=0.7, similarity=similarity)
_WORD = re.compile(r"[A-Za-z_]\w{2,}")
_FILL = """
    INSERT INTO near_dup_bands
    SELECT (random() * 2 - 1) * 9e18::float8, n + 1000000000
    FROM generate_series(1, 14) AS band, generate_series(1, :num) AS n
"""


def rename(text: str, number: int) -> str:
    """Return a text of the same form that is near to no other number's."""
    return _WORD.sub(lambda word: word[0][:4] + str(zlib.crc32(word[0].encode()) % 97 * number % 100_003), text)


def make_batch(texts: list[str], first: int, chance: random.Random, *, has_bands: bool) -> list[files.NewFile]:
    """Make a batch of new files; the bands are the child's work and not timed."""
    contents = [rename(chance.choice(texts)[:MAX_CHARS], first + number) for number in range(BATCH_ROWS)]
    return [make_file(None, text, bands=make_bands(text) if has_bands else []) for text in contents]


def save(engine: sa.Engine, claim: Claim, batch: list[files.NewFile]) -> dict[str, float]:
    """Save a batch; return the milliseconds of all of it, those under the lock, and of our processor and the server's.

    The processors' time is what a busy machine leaves comparable.
    """
    locked: list[float] = []
    lock = files.lock_ingest

    def lock_and_note(conn: sa.Connection) -> None:
        lock(conn)
        locked.append(time.perf_counter())

    files.lock_ingest = lock_and_note
    try:
        with engine.connect() as conn:
            pid = conn.connection.driver_connection.info.backend_pid
        own_cpu_s, server_cpu_s = time.process_time(), read_cpu_s(pid)
        start = time.perf_counter()
        with engine.begin() as conn:
            saved = files.save_files(conn, claim, batch, near=_RULE)
        end = time.perf_counter()
        cpu_s = time.process_time() - own_cpu_s + read_cpu_s(pid) - server_cpu_s
    finally:
        files.lock_ingest = lock
    assert saved.num_new == BATCH_ROWS, saved
    return {"all_ms": 1e3 * (end - start), "locked_ms": 1e3 * (end - locked[0]), "cpu_ms": 1e3 * cpu_s}


def read_cpu_s(pid: int) -> float:
    """Return the seconds that a process has been on a processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def measure(engine: sa.Engine, texts: list[str]) -> dict[str, dict[str, float]]:
    """Save batches of both kinds in turn; return the best and the median of each."""
    upgrade(engine)
    with engine.begin() as conn:
        open_line(conn, name="bench", base_model="base")
        claim = claim_source(conn)
        conn.execute(sa.text(_FILL), {"num": NUM_STORED})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(sa.text("VACUUM ANALYZE"))
    chance = random.Random(1)
    times: dict[str, list[dict[str, float]]] = {"without bands": [], "with bands": []}
    for number in range(NUM_ROUNDS):
        for place, (kind, measured) in enumerate(times.items()):
            first = (2 * number + place) * BATCH_ROWS + 1
            measured.append(save(engine, claim, make_batch(texts, first, chance, has_bands=kind == "with bands")))
    return {
        kind: {
            f"{name}_{key}": summary([one[key] for one in measured])
            for name, summary in (("best", min), ("median", median))
            for key in measured[0]
        }
        for kind, measured in times.items()
    }


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trees", nargs="+", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    texts = list(read_texts(options.trees).values())
    with tempfile.TemporaryDirectory() as home, open_server(Path(home), purpose="bench", grace_s=0.0) as server:
        engine = create_engine(server.url, application_name="bench")
        print(json.dumps(measure(engine, texts), indent=None if options.json else 2))
        engine.dispose()


if __name__ == "__main__":
    main()
