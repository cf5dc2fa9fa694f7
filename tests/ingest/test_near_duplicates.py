"""Near-duplicates from the child that reads the texts to the rows, and the command that indexes older rows."""

import threading
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from ingest.indexing import index_files
from schema.audit import audit
from sourcecode.near_duplicates import make_bands

Fetch = Callable[..., list[tuple[object, ...]]]


def make_module(name: str, num: int = 30) -> str:
    """Return a module of `num` functions; of another name nothing is alike."""
    functions = (
        f'def {name}_{n}(left_{name}: int, right_{name}: int) -> int:\n    """Add {n} {name}."""\n'
        f"    return left_{name} * {n} + right_{name}\n"
        for n in range(num)
    )
    return "\n\n".join(functions)


def test_near_copies_in_two_sources_are_stored_and_all_but_one_excluded(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch, engine: sa.Engine
) -> None:
    text = make_module("alpha")
    changed = text.replace("alpha_7", "alpha_seven")
    first = make_folder("first", {"a/a.py": text, "b/b.py": make_module("beta"), "c/short.py": make_module("c", 1)})
    second = make_folder("second", {"a/copy.py": text, "b/near.py": changed, "c/other.py": make_module("gamma")})
    ingest(first)
    ingest(second)
    rows = fetch(
        "SELECT file_path, content = :text OR content = :changed, near_dup_of IS NOT NULL, bands, near_dup_similarity"
        " FROM processed_files ORDER BY 1",
        text=text,
        changed=changed,
    )
    assert [(path, is_copy) for path, _, is_copy, *_ in rows] == [
        *(("a/a.py", False), ("a/copy.py", True), ("b/b.py", False), ("b/near.py", True)),
        *(("c/other.py", False), ("c/short.py", False)),
    ]
    bands = {path: own for path, _, _, own, _ in rows}
    assert (bands["b/near.py"], bands["c/short.py"]) == (make_bands(changed), make_bands(make_module("c", 1)))
    assert next(similarity for path, *_, similarity in rows if path == "b/near.py") > 0.9
    with engine.begin() as conn:
        assert audit(conn).rows_unaccounted == 0


def test_rows_from_before_there_were_bands_are_indexed_while_workers_run_and_only_once(
    make_folder: Callable[..., Path], ingest: Callable[..., None], fetch: Fetch, engine: sa.Engine
) -> None:
    ingest(make_folder("first", {f"{n}/a.py": make_module(f"name{n}") for n in range(5)}))
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE processed_files SET bands = NULL, bands_version = NULL"))
        conn.execute(sa.text("TRUNCATE near_dup_bands"))
    shown: list[int] = []
    assert [index_files(engine, stop=threading.Event(), show=shown.append) for _ in range(2)] == [5, 0]
    assert shown == [5]
    ingest(make_folder("second", {"a.py": make_module("name3") + "\nx = 1\n"}))
    reasons = fetch("SELECT DISTINCT excluded_reason FROM processed_files WHERE file_path = 'a.py'")
    assert len(reasons) == 1
    assert reasons[0][0] in ("near_duplicate", "near_held_out", "near_trained")
