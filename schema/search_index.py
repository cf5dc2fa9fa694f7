"""Filling search_entries beside everything else: new files in the order of their placement, repositories that changed.

Nothing is written when a file is stored, so the search costs ingest nothing; a minute later the file is found.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.search_words import find_defined, make_tags, make_words, name_word, to_vector
from schema.tables import Chore

BATCH_ROWS = 500
_SWEEP_IDS = 5_000
_LAST_ID = (1 << 63) - 1
# The row of `chores` whose figures say how far the index has come.
MARK = "search_mark"

_FETCH_LAST = sa.text("SELECT coalesce(max(placed_in), 0) FROM processed_files")
_FILES = """
    SELECT f.id, f.repository_id, f.file_path, f.language, f.licence, f.quality_score, f.content, f.placed_in,
        concat_ws('/', r.owner, r.name) AS repository
    FROM processed_files f JOIN repositories r ON r.id = f.repository_id
    WHERE f.content IS NOT NULL AND f.excluded_reason IS DISTINCT FROM 'opted_out'
"""
# First all there is, by its number; then what was placed since. Whoever sees a placement sees all earlier ones too, for
# they are numbered under the ingest lock; ids are not, and some of an older version's files have no placement.
_FETCH_ALL = sa.text(f"{_FILES} AND f.id > :id ORDER BY f.id LIMIT :limit")
_FETCH_PLACED = sa.text(
    f"{_FILES} AND f.placed_in >= :placed_in AND (f.placed_in, f.id) > (:placed_in, :id)"
    " ORDER BY f.placed_in, f.id LIMIT :limit"
)
_SAVE = sa.text(
    """
    INSERT INTO search_entries (kind, item_id, repository_id, score, words, digest)
    SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:ids AS bigint[]), CAST(:repositories AS bigint[]),
        CAST(:scores AS double precision[]), CAST(:words AS tsvector[]), CAST(:digests AS text[]))
    ON CONFLICT (kind, item_id) DO UPDATE SET score = excluded.score, words = excluded.words, digest = excluded.digest
    """
)
_DIGEST = """
    md5(concat_ws(E'\\n', r.source, r.moved_to, r.owner, r.name, r.language, array_to_string(r.topics, ' '),
        coalesce(r.licence, r.api_licence), coalesce(r.repository_score, r.quality_score), r.description))
"""
_FETCH_REPOSITORIES = sa.text(
    f"""
    SELECT r.id, r.source, r.owner, r.name, r.language, r.topics, r.description,
        coalesce(r.licence, r.api_licence) AS licence,
        coalesce(r.repository_score, r.quality_score, 0) AS score, {_DIGEST} AS digest
    FROM repositories r LEFT JOIN search_entries s ON s.kind = 'repository' AND s.item_id = r.id
    WHERE r.reason IS DISTINCT FROM 'opted_out' AND s.digest IS DISTINCT FROM {_DIGEST}
    ORDER BY r.id LIMIT :limit
    """  # noqa: S608 - constants
)
# What left for good since it was indexed; a search passes over it already.
_SWEEP = sa.text(
    """
    DELETE FROM search_entries s USING processed_files f
    WHERE s.kind = 'file' AND s.item_id > :after AND s.item_id <= :until AND f.id = s.item_id
        AND (f.content IS NULL OR f.excluded_reason IN ('superseded', 'vanished', 'opted_out'))
    """
)
_FETCH_MAX = sa.text("SELECT coalesce(max(item_id), 0) FROM search_entries WHERE kind = 'file'")
# New entries wait in a list, which makes them four times cheaper than one by one, and which every search reads.
_CLEAN = sa.text("SELECT gin_clean_pending_list('ix_search_entries_words')")
_FORGET = sa.text("DELETE FROM search_entries WHERE repository_id = ANY(:ids)")


def index_new(engine: sa.Engine) -> Iterator[int]:
    """Index what is new, a batch in a transaction; yield the entries of each. It may be broken off anywhere."""
    for index in (_index_repositories, _index_files):
        while True:
            with engine.begin() as conn:
                num = index(conn)
            if num == 0:
                break
            yield num
    with engine.begin() as conn:
        conn.execute(_CLEAN)


def sweep(engine: sa.Engine) -> Iterator[int]:
    """Forget the words of files that left for good or whose contents were dropped; yield their number by batches."""
    with engine.begin() as conn:
        last = conn.execute(_FETCH_MAX).scalar_one()
    for after in range(0, last, _SWEEP_IDS):
        with engine.begin() as conn:
            yield conn.execute(_SWEEP, {"after": after, "until": after + _SWEEP_IDS}).rowcount


def forget_repositories(conn: sa.Connection, ids: Sequence[int]) -> None:
    """Forget repositories and all of their files at once."""
    conn.execute(_FORGET, {"ids": list(ids)})


def _index_files(conn: sa.Connection) -> int:
    mark = _fetch_mark(conn)
    rows = _fetch_files(conn, mark)
    if not rows and mark["is_first"]:
        mark |= {"is_first": False, "id": _LAST_ID}  # of that placement all is seen: it was committed as a whole
        rows = _fetch_files(conn, mark)
    if rows:
        _save(conn, [_describe_file(row) for row in rows])
        mark |= {"id": rows[-1].id} if mark["is_first"] else {"id": rows[-1].id, "placed_in": rows[-1].placed_in}
    _save_mark(conn, mark)
    return len(rows)


def _fetch_files(conn: sa.Connection, mark: dict[str, Any]) -> Sequence[Any]:
    query = _FETCH_ALL if mark["is_first"] else _FETCH_PLACED
    return conn.execute(query, {**mark, "limit": BATCH_ROWS}).all()


def _index_repositories(conn: sa.Connection) -> int:
    rows = conn.execute(_FETCH_REPOSITORIES, {"limit": BATCH_ROWS}).all()
    if rows:
        _save(conn, [_describe_repository(row) for row in rows])
    return len(rows)


def _describe_file(row: Any) -> dict[str, Any]:
    names = make_words([row.repository, row.file_path, *find_defined(row.content)])
    words = [*make_tags("file", row.language, row.licence), *names, *make_words([row.content])]
    return _entry("file", row.id, row.repository_id, row.quality_score, [*words, *map(name_word, names)], None)


def _describe_repository(row: Any) -> dict[str, Any]:
    names = make_words([row.source, row.owner or "", row.name, row.language or "", *row.topics])
    words = [*make_tags("repository", row.language, row.licence), *names, *make_words([row.description or ""])]
    return _entry("repository", row.id, row.id, row.score, [*words, *map(name_word, names)], row.digest)


def _entry(
    kind: str, item_id: int, repository_id: int, score: float, words: list[str], digest: str | None
) -> dict[str, Any]:
    return {
        "kinds": kind,
        "ids": item_id,
        "repositories": repository_id,
        "scores": score,
        "words": to_vector(words),
        "digests": digest,
    }


def _save(conn: sa.Connection, entries: Sequence[dict[str, Any]]) -> None:
    conn.execute(_SAVE, {name: [entry[name] for entry in entries] for name in entries[0]})


def _fetch_mark(conn: sa.Connection) -> dict[str, Any]:
    found = conn.execute(sa.select(Chore.figures).where(Chore.name == MARK)).scalar_one_or_none()
    return found or {"is_first": True, "id": 0, "placed_in": conn.execute(_FETCH_LAST).scalar_one()}


def _save_mark(conn: sa.Connection, mark: dict[str, Any]) -> None:
    new = insert(Chore).values(name=MARK, due_at=sa.func.now(), figures=mark)
    conn.execute(new.on_conflict_do_update(index_elements=["name"], set_={"figures": mark}))
