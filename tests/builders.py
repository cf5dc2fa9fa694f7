"""Rows for tests, made through the real paths: sources by the clone queue, files by `save_files`."""

import hashlib
import itertools
import uuid
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from schema.files import NewFile, Saved, save_files
from schema.leases import HeldLease, acquire_lease
from schema.repositories import Claim, add_source, claim_repository, finish_repository
from schema.runs import Limits, Run, claim_run
from schema.tables import ProcessedFile, QueueItem

ANY = Limits(min_score=0, min_chars=0, max_chars_total=None, max_rows=100_000)
_numbers = itertools.count(1)


def make_file(path: str | None = None, content: str | None = None, **values: Any) -> NewFile:
    """Make a file that differs from every other one, unless path and content say otherwise."""
    number = next(_numbers)
    path = path or f"src/file_{number}.py"
    content = content if content is not None else f"def function_{number}():\n    return {number}\n"
    data = content.encode(errors="surrogatepass")
    file = NewFile(
        file_path=path,
        commit="c0ffee",
        blob_oid=hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
        language="python",
        content=content,
        content_sha256=hashlib.sha256(data).hexdigest(),
        num_chars=len(content),
        num_lines=content.count("\n"),
        quality_score=80.0,
        score_detail={"structure": 80},
        scorer_version=1,
        licence="MIT",
        unit=path.partition("/")[0],
        split="train",
        owner="somebody",
        bands=[],
        bands_version=1,
    )
    return replace(file, **values)


def claim_source(conn: sa.Connection, source: str | None = None) -> Claim:
    """Queue a source, a new one without a name, and claim it as a worker would."""
    source = source or f"/sources/{next(_numbers)}"
    add_source(conn, source=source, kind="folder", name=source.rpartition("/")[2], priority=1_000_000)
    claim = claim_repository(conn, lease_s=600)
    assert claim is not None
    assert claim.source == source
    return claim


def add_repository(conn: sa.Connection, source: str | None = None) -> int:
    """Add a source that has been visited, with no files yet."""
    claim = claim_source(conn, source)
    finish(conn, claim)
    return claim.repository_id


def finish(conn: sa.Connection, claim: Claim) -> None:
    """Finish a visit with figures that mean nothing."""
    figures = {"quality_score": 80.0, "code_lines": 10, "file_count": 1}
    finish_repository(
        conn, claim, head_commit="c0ffee", licence="MIT", licence_evidence="LICENSE", refusals={"binary": 1}, **figures
    )


def add_files(
    conn: sa.Connection, repository_id: int, num: int, *, split: str = "train", score: float = 80.0, **values: Any
) -> list[int]:
    """Store `num` new files in a visited repository through `save_files`; return their ids in order."""
    source = conn.execute(sa.text("SELECT source FROM repositories WHERE id = :id"), {"id": repository_id}).scalar_one()
    claim = claim_source(conn, source)
    files = [make_file(split=split, quality_score=score, **values) for _ in range(num)]
    save_files(conn, claim, files)
    finish(conn, claim)
    paths = [file.file_path for file in files]
    ids = sa.select(ProcessedFile.id).where(
        ProcessedFile.repository_id == repository_id, ProcessedFile.file_path.in_(paths)
    )
    return list(conn.execute(ids.order_by(ProcessedFile.id)).scalars())


def fetch_file(conn: sa.Connection, file_id: int) -> dict[str, Any]:
    """Return every column of one stored file."""
    row = conn.execute(sa.select(ProcessedFile.__table__).where(ProcessedFile.id == file_id)).mappings().one()
    return dict(row)


def save(conn: sa.Connection, claim: Claim, *files: NewFile) -> Saved:
    """Store these files under a claim."""
    return save_files(conn, claim, files)


def quarantine(conn: sa.Connection, line_id: int, item_ids: list[int], reason: str) -> None:
    """Quarantine rows of a line, as the search for a row at fault does."""
    chosen = (QueueItem.line_id == line_id, QueueItem.item_id.in_(item_ids))
    conn.execute(sa.update(QueueItem).where(*chosen).values(quarantined_reason=reason))


def hold_line(conn: sa.Connection, name: str = "line:qwen", holder: str = "daemon") -> HeldLease:
    """Take a line's lease for ten minutes."""
    lease = acquire_lease(conn, name, holder, length_s=600)
    assert lease is not None
    return lease


def open_run(conn: sa.Connection, line_id: int, lease: HeldLease, **values: Any) -> Run | None:
    """Claim an adapter run of everything pending, unless `values` say otherwise."""
    defaults = {"kind": "adapter", "limits": ANY, "min_rows": 1, "config": {"seed": 1}, "parent_version": None}
    return claim_run(conn, run_uuid=str(uuid.uuid4()), line_id=line_id, lease=lease, **(defaults | values))
