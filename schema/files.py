"""Storing files: known ones are skipped, duplicates placed by I6, queue rows written in the same transaction."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

import psycopg
import sqlalchemy as sa

from schema import placement
from schema.backlog import enqueue_files, exclude_items, lock_ingest
from schema.caps import cap_items
from schema.near_duplicates import NearRule, Neighbourhood
from schema.repositories import Claim, check_claim
from schema.succession import promote_duplicates
from schema.tables import ProcessedFile, RefusedFile

# A file row with one of these is not the path's present content.
_PAST = ("superseded", "vanished")


@dataclass(frozen=True, slots=True)
class NewFile:
    """One accepted file as the worker read and judged it; `score_detail` must be JSON.

    `bands` are 64-bit hashes of which near-duplicates share some; without any, only an exact copy is found.
    """

    file_path: str
    commit: str | None
    blob_oid: str
    language: str
    content: str
    content_sha256: str
    num_chars: int
    num_lines: int
    quality_score: float
    score_detail: dict[str, Any]
    scorer_version: int
    licence: str | None
    unit: str
    split: str
    owner: str
    bands: list[int]
    bands_version: int


_PLAIN = [field.name for field in fields(NewFile) if field.name not in ("score_detail", "bands")]
_STAGED = ["ordinal", "score_detail", "bands", *_PLAIN]
_get_staged = attrgetter(*_PLAIN)


@dataclass(frozen=True, slots=True)
class RefusedFileRow:
    """One file that was read and not accepted, and why (I10)."""

    file_path: str
    blob_oid: str
    num_bytes: int
    reason: str
    detail: str | None


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of a batch: each file is new, known, excluded (by reason) or refused by the database (by reason)."""

    num_new: int
    num_known: int
    num_superseded: int  # earlier versions that these replace
    num_excluded: dict[str, int]
    num_refused: dict[str, int]


def fetch_known_files(conn: sa.Connection, repository_id: int) -> dict[str, tuple[str, int]]:
    """Map each stored path of a repository to its present object id and file id."""
    stored = sa.select(ProcessedFile.file_path, ProcessedFile.blob_oid, ProcessedFile.id).where(
        ProcessedFile.repository_id == repository_id,
        sa.or_(ProcessedFile.excluded_reason.is_(None), ProcessedFile.excluded_reason.not_in(_PAST)),
    )
    return {path: (blob_oid, file_id) for path, blob_oid, file_id in conn.execute(stored)}


def fetch_refusals(conn: sa.Connection, repository_id: int) -> dict[str, tuple[str, str]]:
    """Map each refused path of a repository to its object id and the reason; what was accepted once is among them."""
    refused = sa.select(RefusedFile.file_path, RefusedFile.blob_oid, RefusedFile.reason).where(
        RefusedFile.repository_id == repository_id
    )
    return {path: (blob_oid, reason) for path, blob_oid, reason in conn.execute(refused)}


def forget_refusals(conn: sa.Connection, repository_id: int, paths: Sequence[str]) -> None:
    """Drop the refusals of paths that are not there any more."""
    gone = RefusedFile.file_path == sa.any_(sa.literal(list(paths), sa.ARRAY(sa.Text)))
    conn.execute(sa.delete(RefusedFile).where(RefusedFile.repository_id == repository_id, gone))


def save_files(
    conn: sa.Connection,
    claim: Claim,
    files: Sequence[NewFile],
    refused: Sequence[RefusedFileRow] = (),
    *,
    near: NearRule | None = None,
) -> Saved:
    """Store a batch of one repository's files with their queue rows; saving it again changes nothing.

    Everything after the upload happens under one lock of the whole database, held until the caller commits: whether a
    content is there already, and in which split, has one answer (I6), and a line that is being opened misses no file
    (I1). One lock rather than one per content: a batch would need thousands, and the part under it takes far less time
    than parsing the files did. What is near is looked for by `near`, needed where files have bands: once before the
    lock, which measures what takes long, and once under it, for what has come since. Commit soon after.

    Raises:
        StaleLease: another worker has taken the repository over.
    """
    check_claim(conn, claim)
    latest = list({file.file_path: file for file in files}.values())
    unstorable = _stage(conn, latest)
    neighbourhood = Neighbourhood(conn, claim.repository_id, latest, near)
    placement.prepare(conn, claim.repository_id, neighbourhood)
    lock_ingest(conn)
    refusals = [*map(_printable, refused), *map(_unstorable, unstorable)]
    superseded = placement.supersede(conn, claim.repository_id, {row.file_path: row.blob_oid for row in refusals})
    _hand_over(conn, superseded)
    placed, changed = placement.place(conn, claim.repository_id, neighbourhood)
    enqueue_files(conn, file_ids=[file_id for file_id, _ in placed])
    if changed:
        exclude_items(conn, changed)
    cap_items(conn, [*(file_id for file_id, _ in placed), *changed])
    _save_refusals(conn, claim.repository_id, refusals)
    return Saved(
        num_new=sum(reason is None for _, reason in placed),
        num_known=len(files) - len(placed) - len(unstorable),
        num_superseded=len(superseded),
        num_excluded=dict(Counter(reason for _, reason in placed if reason is not None)),
        num_refused={"encoding": len(unstorable)} if unstorable else {},
    )


def exclude_files(conn: sa.Connection, file_ids: Sequence[int], reason: str) -> int:
    """Keep files from being claimed by any line, with the reason; return how many that changed.

    What a run has consumed already stays consumed. A duplicate of a file that leaves takes its place.
    """
    lock_ingest(conn)
    leaving = (
        sa.update(ProcessedFile)
        .where(
            ProcessedFile.id == sa.any_(sa.literal(list(file_ids), sa.ARRAY(sa.BigInteger))),
            sa.or_(ProcessedFile.excluded_reason.is_(None), ProcessedFile.excluded_reason.not_in((*_PAST, reason))),
        )
        .values(excluded_reason=reason)
        .returning(ProcessedFile.id)
    )
    gone = list(conn.execute(leaving).scalars())
    _hand_over(conn, gone)
    return len(gone)


def _hand_over(conn: sa.Connection, gone: Sequence[int]) -> None:
    if gone:
        # First: this waits for who claims one of them right now, and what was consumed decides about its copies.
        exclude_items(conn, gone)
        changed = promote_duplicates(conn, gone)
        if changed:
            exclude_items(conn, changed)
        cap_items(conn, [*gone, *changed])


def _stage(conn: sa.Connection, files: Sequence[NewFile]) -> list[NewFile]:
    """Upload files into a temporary table; return those that the database cannot store."""
    conn.execute(placement.MAKE_STAGE)
    conn.execute(sa.text("TRUNCATE staged_files"))
    return _upload(conn, files, 0) if files else []


def _upload(conn: sa.Connection, files: Sequence[NewFile], first_ordinal: int) -> list[NewFile]:
    """Copy by halves around a bad row, so that it does not cost its batch."""
    try:
        with conn.begin_nested():
            _copy(conn, files, first_ordinal)
    except (psycopg.DataError, UnicodeEncodeError):
        if len(files) == 1:
            return list(files)
        half = len(files) // 2
        return _upload(conn, files[:half], first_ordinal) + _upload(conn, files[half:], first_ordinal + half)
    return []


def _copy(conn: sa.Connection, files: Sequence[NewFile], first_ordinal: int) -> None:
    connection: psycopg.Connection[Any] = conn.connection.driver_connection  # type: ignore[assignment]
    with connection.cursor() as cursor, cursor.copy(f"COPY staged_files ({', '.join(_STAGED)}) FROM STDIN") as copy:
        for ordinal, file in enumerate(files, start=first_ordinal):
            # The array's text form: psycopg would look for a type that fits all of each list.
            bands = f"{{{','.join(map(str, file.bands))}}}"
            copy.write_row((ordinal, json.dumps(file.score_detail), bands, *_get_staged(file)))


def _save_refusals(conn: sa.Connection, repository_id: int, refusals: Sequence[RefusedFileRow]) -> None:
    conn.execute(placement.FORGET_REFUSALS, {"repository_id": repository_id})
    latest = {row.file_path: row for row in refusals}
    if latest:
        columns = {
            field.name: [getattr(row, field.name) for row in latest.values()] for field in fields(RefusedFileRow)
        }
        conn.execute(placement.SAVE_REFUSALS, columns | {"repository_id": repository_id})


def _unstorable(file: NewFile) -> RefusedFileRow:
    num_bytes = len(file.content.encode(errors="surrogatepass"))
    return _printable(RefusedFileRow(file.file_path, file.blob_oid, num_bytes, "encoding", "not storable as text"))


def _printable(row: RefusedFileRow) -> RefusedFileRow:
    detail = None if row.detail is None else _storable(row.detail)
    return replace(row, file_path=_storable(row.file_path), detail=detail)


def _storable(text: str) -> str:
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()
