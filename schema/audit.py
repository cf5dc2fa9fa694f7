"""Row accounting (I1): every item is in exactly one state per line, computed from the tables as they stand."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

STATES = ("pending", "claimed", "trained", "held_out", "excluded", "quarantined")
NUM_NAMED = 100  # unaccounted rows in a report

# One row per (line, item) that any of the three tables knows of: the item, its queue row, its live ledger row.
_ACCOUNTS = """
    WITH items AS (
        SELECT l.id AS line_id, 'file' AS item_kind, f.id AS item_id, f.content_sha256, f.unit, f.split,
            f.excluded_reason
        FROM lines l CROSS JOIN processed_files f
    ),
    live AS (
        SELECT * FROM training_run_items WHERE role IN ('base', 'train') AND released_at IS NULL
    ),
    runs AS (SELECT id, line_id AS line, state FROM training_runs),
    accounts AS (
        SELECT line_id, item_kind, item_id, coalesce(i.run_id, q.run_id) AS run_id,
            CASE
                WHEN f.content_sha256 IS NULL THEN 'no_such_item'
                WHEN q.split IS NULL THEN 'not_queued'
                WHEN q.run_id IS NOT NULL AND i.run_id IS NULL THEN 'claim_not_in_ledger'
                WHEN q.run_id IS NULL AND i.run_id IS NOT NULL THEN 'ledger_without_claim'
                WHEN q.run_id <> i.run_id THEN 'claimed_by_two_runs'
                WHEN r.line <> line_id THEN 'run_of_another_line'
                WHEN r.state IN ('held', 'rejected', 'failed') THEN 'not_released'
                WHEN i.content_sha256 <> f.content_sha256 THEN 'content_changed'
                WHEN (q.unit, q.split) <> (f.unit, f.split) THEN 'split_changed'
                WHEN q.run_id IS NOT NULL AND f.split <> 'train' THEN 'held_out_consumed'
                WHEN q.excluded_reason IS DISTINCT FROM f.excluded_reason
                    AND NOT (q.excluded_reason = 'owner_cap' AND f.excluded_reason IS NULL) THEN 'exclusion_differs'
            END AS problem,
            CASE
                WHEN r.state = 'promoted' THEN 'trained'
                WHEN q.run_id IS NOT NULL THEN 'claimed'
                WHEN q.quarantined_reason IS NOT NULL THEN 'quarantined'
                WHEN q.excluded_reason IS NOT NULL THEN 'excluded'
                WHEN q.split <> 'train' THEN 'held_out'
                ELSE 'pending'
            END AS state
        FROM items f
        FULL JOIN training_queue q USING (line_id, item_kind, item_id)
        FULL JOIN live i USING (line_id, item_kind, item_id)
        LEFT JOIN runs r ON r.id = coalesce(i.run_id, q.run_id)
    )
"""
_COUNT = sa.text(
    _ACCOUNTS  # noqa: S608 - constants
    + """
    SELECT l.name AS line, a.state, a.problem, count(*) AS num
    FROM accounts a JOIN lines l ON l.id = a.line_id
    GROUP BY l.name, a.state, a.problem ORDER BY l.name, a.state, a.problem
    """
)
_NAME = sa.text(
    _ACCOUNTS  # noqa: S608 - constants
    + """
    SELECT l.name AS line, a.item_kind, a.item_id, a.problem, r.number AS run, p.source AS repository, f.file_path
    FROM accounts a JOIN lines l ON l.id = a.line_id
    LEFT JOIN training_runs r ON r.id = a.run_id
    LEFT JOIN processed_files f ON a.item_kind = 'file' AND f.id = a.item_id
    LEFT JOIN repositories p ON p.id = f.repository_id
    WHERE a.problem IS NOT NULL
    ORDER BY l.name, a.item_kind, a.item_id LIMIT :num_named
    """
)
_ANY_LINE = sa.text("SELECT EXISTS (SELECT FROM lines)")
_COUNT_FILES = sa.text("SELECT count(*) FROM processed_files")


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The accounts: rows are (line, item) pairs; rows_total is the sum of by_state and rows_unaccounted."""

    rows_total: int
    rows_unaccounted: int
    by_state: dict[str, int]
    by_line: dict[str, dict[str, int]]  # line: state: rows
    unaccounted: list[dict[str, Any]]  # the first NUM_NAMED, with line, item, problem, run and path
    problems: dict[str, int]  # problem: rows

    def to_json(self) -> str:
        """Return the report as one JSON document."""
        return json.dumps(asdict(self), indent=2)


def audit(conn: sa.Connection) -> AuditReport:
    """Account for every item of every line; before there is a line, every file is pending."""
    if not conn.execute(_ANY_LINE).scalar_one():
        num_files = conn.execute(_COUNT_FILES).scalar_one()
        return AuditReport(num_files, 0, dict.fromkeys(STATES, 0) | {"pending": num_files}, {}, [], {})
    by_line: dict[str, dict[str, int]] = {}
    problems: Counter[str] = Counter()
    for line, state, problem, num in conn.execute(_COUNT):
        states = by_line.setdefault(line, dict.fromkeys(STATES, 0))
        if problem is None:
            states[state] += num
        else:
            problems[problem] += num
    by_state = {state: sum(states[state] for states in by_line.values()) for state in STATES}
    num_unaccounted = problems.total()
    named = conn.execute(_NAME, {"num_named": NUM_NAMED}).mappings().all() if num_unaccounted else []
    return AuditReport(
        rows_total=sum(by_state.values()) + num_unaccounted,
        rows_unaccounted=num_unaccounted,
        by_state=by_state,
        by_line=by_line,
        unaccounted=[dict(row) for row in named],
        problems=dict(problems),
    )
