"""Repositories that the crawler has found: stored or brought up to date, a page in one statement each."""

import dataclasses
import datetime as dt
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa


@dataclasses.dataclass(frozen=True, slots=True)
class FoundRow:
    """One repository as a search showed it and as it was judged: `state` is queued, or refused with a reason."""

    node_id: str
    source: str
    host: str
    owner: str
    name: str
    stars: int
    forks: int
    language: str
    topics: list[str]
    api_licence: str | None
    size_kb: int
    pushed_at: dt.datetime
    repository_score: float
    score_detail: dict[str, Any]
    priority: int
    state: str
    reason: str | None
    description: str | None = None


_NAMES = [field.name for field in dataclasses.fields(FoundRow)]
_FOUND = """
    WITH found AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS x (
            node_id text, source text, host text, owner text, name text, stars bigint, forks bigint, language text,
            topics text[], api_licence text, size_kb bigint, pushed_at timestamptz, repository_score double precision,
            score_detail jsonb, priority bigint, state text, reason text, description text
        )
    )
"""
# The crawler's rules are for what it found itself: a source that the operator named keeps its place. What it refused
# before anybody visited it, it may accept; what was visited is visited again when something was pushed.
# ruff: noqa: S608 - constants
_OURS = "r.origin = 'crawler' AND r.state <> 'working' AND r.reason IS DISTINCT FROM 'opted_out'"
_IS_REFUSED = f"{_OURS} AND excluded.state = 'refused' AND r.visited_at IS NULL AND r.state IN ('queued', 'refused')"
_IS_QUEUED = f"""{_OURS} AND excluded.state = 'queued' AND (
    r.visited_at IS NULL AND r.state = 'refused'
    OR r.state IN ('done', 'refused', 'dead') AND excluded.pushed_at > r.pushed_at
)"""
_SET = f"""
    node_id = excluded.node_id, stars = excluded.stars, forks = excluded.forks, topics = excluded.topics,
    language = excluded.language, size_kb = excluded.size_kb, repository_score = excluded.repository_score,
    score_detail = excluded.score_detail, pushed_at = excluded.pushed_at,
    api_licence = excluded.api_licence, description = excluded.description,
    moved_to = nullif(excluded.source, r.source),
    priority = CASE WHEN {_OURS} THEN excluded.priority ELSE r.priority END,
    state = CASE WHEN {_IS_REFUSED} THEN 'refused' WHEN {_IS_QUEUED} THEN 'queued' ELSE r.state END,
    reason = CASE WHEN {_IS_REFUSED} THEN excluded.reason WHEN {_IS_QUEUED} THEN NULL ELSE r.reason END,
    attempts = CASE WHEN {_IS_QUEUED} THEN 0 ELSE r.attempts END,
    not_before = CASE WHEN {_IS_QUEUED} THEN now() ELSE r.not_before END
"""
# In one order, so that two crawlers with the same page wait for each other instead of for ever.
_LOCK = sa.text(
    _FOUND
    + """
    SELECT r.id FROM repositories r
    WHERE r.node_id IN (SELECT node_id FROM found) OR r.source IN (SELECT source FROM found)
    ORDER BY r.id FOR UPDATE
    """
)
_UPDATE = sa.text(
    _FOUND
    + f"""
    UPDATE repositories r SET {_SET}
    FROM found AS excluded WHERE r.node_id = excluded.node_id
    RETURNING r.node_id
    """
)
# A name may have gone to another repository since: to one that took the place of a deleted one, whose row it then is;
# or of one that has moved, whose row stays its own (it is known by the id), and the newcomer is not stored.
_INSERT = sa.text(
    _FOUND
    + f"""
    INSERT INTO repositories AS r (
        kind, origin, node_id, source, host, owner, name, stars, forks, language, topics, api_licence, size_kb,
        pushed_at, repository_score, score_detail, priority, state, reason, description
    )
    SELECT 'git', 'crawler', node_id, source, host, owner, name, stars, forks, language, topics, api_licence, size_kb,
        pushed_at, repository_score, score_detail, priority, state, reason, description
    FROM found WHERE node_id <> ALL(:known) ORDER BY source
    ON CONFLICT (source) DO UPDATE SET {_SET} WHERE r.moved_to IS NULL
    RETURNING r.state, xmax = 0 AS is_new
    """
)


def save_found(conn: sa.Connection, rows: Sequence[FoundRow]) -> Counter[str]:
    """Store what one page showed; return how many are newly queued, newly refused, known, or not stored (taken_name).

    GitHub's id tells who is who: a rename changes where a repository is cloned from, it makes no second one.
    """
    # The last of two with one id or one name: a page read while something moves may show it twice.
    unique = {row.source: row for row in {row.node_id: row for row in rows}.values()}
    if not unique:
        return Counter()
    values = json.dumps([{name: getattr(row, name) for name in _NAMES} for row in unique.values()], default=str)
    conn.execute(_LOCK, {"rows": values})
    known = list(conn.execute(_UPDATE, {"rows": values}).scalars())
    stored = conn.execute(_INSERT, {"rows": values, "known": known}).all()
    counts = Counter(row.state if row.is_new else "known" for row in stored)
    counts["known"] += len(known)
    counts["taken_name"] += len(unique) - len(known) - len(stored)
    return +counts
