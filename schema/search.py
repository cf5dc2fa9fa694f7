"""Search over repositories and files: words in code, what is named or defined so first, then the best scores."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from schema.search_query import Query, SearchError, parse_query
from schema.search_snippets import Snippet, find_snippets
from schema.search_words import make_tag, quote

MAX_LIMIT = 100
FILE_STATES = ("pending", "claimed", "trained", "held_out", "excluded", "quarantined")
REPOSITORY_STATES = ("queued", "working", "done", "refused", "dead")
# What left meanwhile is passed over: so many times more candidates are looked up before a page stays short.
_MAX_ROUNDS = 5
_LAST_ID = (1 << 63) - 1
_FIRST = {"score": 1e308, "kind": "repository", "item_id": _LAST_ID}  # before every other place

Kind = Literal["repository", "file"]


class SearchTimeout(SearchError):
    """The server has cancelled it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One repository or file."""

    kind: str
    id: int
    repository: str  # its source
    path: str | None  # of a file
    language: str | None
    licence: str | None
    score: float
    is_named: bool  # every word is in its name or path, or is defined in it
    states: dict[str, str]  # of a file by line; of a repository its place in the queue
    snippets: list[Snippet]


@dataclass(frozen=True, slots=True)
class Page:
    """Some hits, best first, and the cursor of the next page; None at the end."""

    hits: list[Hit]
    next_cursor: str | None


_FILE_STATE = """
    CASE
        WHEN r.state = 'promoted' THEN 'trained'
        WHEN q.run_id IS NOT NULL THEN 'claimed'
        WHEN q.quarantined_reason IS NOT NULL THEN 'quarantined'
        WHEN q.excluded_reason IS NOT NULL THEN 'excluded'
        WHEN q.split <> 'train' THEN 'held_out'
        ELSE 'pending'
    END
"""
_QUEUED = "training_queue q LEFT JOIN training_runs r ON r.id = q.run_id"
# What is named so and what only holds the words are two questions, each of which the index answers alone: to look into
# the words of every match would take a hundred times as long.
_CANDIDATES = """
    SELECT score, kind, item_id FROM search_entries s
    WHERE words @@ CAST(:query AS tsquery) {conditions}
    ORDER BY score DESC, kind DESC, item_id DESC LIMIT :limit
"""
_AFTER = "AND (score, kind, item_id) < (:score, :kind, :item_id)"
_HAS_STATE = f"""
    AND CASE WHEN kind = 'repository'
        THEN EXISTS (SELECT FROM repositories p WHERE p.id = item_id AND p.state = :state)
        ELSE EXISTS (
            SELECT FROM {_QUEUED} WHERE q.item_kind = 'file' AND q.item_id = s.item_id AND {_FILE_STATE} = :state
        )
    END
"""  # noqa: S608 - constants
_FETCH_FILES = sa.text(
    f"""
    SELECT f.id, p.source, f.file_path, f.language, f.licence, f.content, (
        SELECT coalesce(jsonb_object_agg(l.name, {_FILE_STATE}), '{{}}')
        FROM {_QUEUED} JOIN lines l ON l.id = q.line_id WHERE q.item_kind = 'file' AND q.item_id = f.id
    ) AS states
    FROM processed_files f JOIN repositories p ON p.id = f.repository_id
    WHERE f.id = ANY(:ids) AND f.content IS NOT NULL
        AND (f.excluded_reason IS NULL
            OR :with_excluded AND f.excluded_reason NOT IN ('superseded', 'vanished', 'opted_out'))
        AND p.reason IS DISTINCT FROM 'opted_out'
    """  # noqa: S608 - constants
)
_FETCH_REPOSITORIES = sa.text(
    """
    SELECT id, source, language, coalesce(licence, api_licence) AS licence, state FROM repositories
    WHERE id = ANY(:ids) AND reason IS DISTINCT FROM 'opted_out'
    """
)


def search(
    conn: sa.Connection,
    query: str,
    *,
    kind: Kind | None = None,
    language: str | None = None,
    licence: str | None = None,
    state: str | None = None,
    limit: int = 20,
    cursor: str | None = None,
) -> Page:
    """Find what holds every word of `query`, the named first, then by score; at most `limit` hits.

    An identifier matches whole or by all of its parts (`readFile` finds `read_file`), `word*` what begins so; what has
    `-word` is left out. A page may be short of `limit` where much has left since it was indexed. The server's statement
    time-out holds.

    Raises:
        SearchError: nothing to look for, too long, or no cursor of ours. SearchTimeout: it took too long.
    """
    parsed = parse_query(query)
    tags = {"kind": kind, "language": language, "licence": licence}
    values: dict[str, Any] = {
        "filter": [quote(make_tag(name, value)) for name, value in tags.items() if value],
        "limit": min(max(limit, 1), MAX_LIMIT),
    }
    if state is not None:
        values["state"] = _check_state(state)
    try:
        return _fill_page(conn, parsed, values, None if cursor is None else _read_cursor(cursor))
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) == "57014":
            raise SearchTimeout(
                "the search took longer than a statement may: name more words, or rarer ones"
            ) from error
        raise


def _fill_page(conn: sa.Connection, parsed: Query, values: dict[str, Any], after: dict[str, Any] | None) -> Page:
    hits: list[Hit] = []
    is_named = after is None or after["is_named"]
    for _ in range(_MAX_ROUNDS):
        candidates = _fetch_candidates(conn, parsed, is_named, values, after)
        found = _fetch_hits(conn, parsed, candidates, with_excluded=values.get("state") == "excluded")
        for candidate in candidates:
            after = candidate
            if (hit := found.get((candidate["kind"], candidate["item_id"]))) is not None:
                hits.append(hit)
            if len(hits) == values["limit"]:
                return Page(hits, _write_cursor(after))
        if len(candidates) < values["limit"]:
            if not is_named:
                return Page(hits, None)
            is_named, after = False, {"is_named": False, **_FIRST}
    return Page(hits, None if after is None else _write_cursor(after))


def _fetch_candidates(
    conn: sa.Connection, parsed: Query, is_named: bool, values: dict[str, Any], after: dict[str, Any] | None
) -> list[dict[str, Any]]:
    conditions = [_AFTER] if after is not None else []
    conditions += [_HAS_STATE] if "state" in values else []
    tsquery = " & ".join([parsed.named if is_named else parsed.other, *values["filter"]])
    statement = sa.text(_CANDIDATES.format(conditions=" ".join(conditions)))
    rows = conn.execute(statement, {**values, **(after or {}), "query": tsquery}).mappings()
    return [{**row, "is_named": is_named} for row in rows]


def _fetch_hits(
    conn: sa.Connection, parsed: Query, candidates: Sequence[dict[str, Any]], *, with_excluded: bool
) -> dict[tuple[str, int], Hit]:
    by_kind = {
        kind: {one["item_id"]: one for one in candidates if one["kind"] == kind} for kind in ("file", "repository")
    }
    hits = {}
    for row in conn.execute(_FETCH_FILES, {"ids": list(by_kind["file"]), "with_excluded": with_excluded}):
        snippets = find_snippets(row.content, parsed.words, parsed.prefixes)
        one = by_kind["file"][row.id]
        hits["file", row.id] = _hit(one, row, path=row.file_path, states=row.states, snippets=snippets)
    for row in conn.execute(_FETCH_REPOSITORIES, {"ids": list(by_kind["repository"])}):
        one = by_kind["repository"][row.id]
        hits["repository", row.id] = _hit(one, row, path=None, states={"queue": row.state}, snippets=[])
    return hits


def _hit(one: dict[str, Any], row: Any, **values: Any) -> Hit:
    return Hit(
        kind=one["kind"],
        id=row.id,
        repository=row.source,
        language=row.language,
        licence=row.licence,
        score=one["score"],
        is_named=one["is_named"],
        **values,
    )


def _check_state(state: str) -> str:
    known = (*FILE_STATES, *REPOSITORY_STATES)
    if state not in known:
        raise SearchError(f"{state!r} is no state: give one of {', '.join(known)}")
    return state


def _write_cursor(place: dict[str, Any]) -> str:
    names = [place[name] for name in ("is_named", "score", "kind", "item_id")]
    return base64.urlsafe_b64encode(json.dumps(names).encode()).decode()


def _read_cursor(cursor: str) -> dict[str, Any]:
    try:
        is_named, score, kind, item_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        kinds: dict[str, Kind] = {"repository": "repository", "file": "file"}
        place = {"is_named": bool(is_named), "score": float(score), "kind": kinds[kind]}
        return place | {"item_id": min(int(item_id), _LAST_ID)}
    except (binascii.Error, ValueError, TypeError, LookupError, OverflowError) as error:
        raise SearchError(f"{cursor[:60]!r} is no cursor: give the one of the page before") from error
