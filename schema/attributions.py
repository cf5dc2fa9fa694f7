"""Whose code a version was trained on, and under which licences: from the ledger of its run and of its ancestors."""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

# The run, the runs of the versions that it continues, and the one that made the line's base.
_LINEAGE = """
    WITH RECURSIVE lineage AS (
        SELECT id, line_id, parent_version FROM training_runs WHERE id = :run_id
        UNION
        SELECT r.id, r.line_id, r.parent_version
        FROM lineage l JOIN training_runs r ON r.line_id = l.line_id AND r.version = l.parent_version
    ),
    runs AS (
        SELECT id FROM lineage
        UNION
        SELECT r.id FROM training_runs r JOIN lineage l ON r.line_id = l.line_id
        WHERE r.kind = 'base' AND r.state = 'promoted'
    )
"""
# ruff: noqa: S608 - constants
_BY_SOURCE = sa.text(
    _LINEAGE
    + """
    SELECT p.source, f.commit, f.licence, p.licence_evidence AS evidence,
        count(*) FILTER (WHERE i.run_id = :run_id) AS rows, count(*) AS rows_in_all
    FROM training_run_items i
    JOIN processed_files f ON i.item_kind = 'file' AND f.id = i.item_id
    JOIN repositories p ON p.id = f.repository_id
    WHERE i.run_id IN (SELECT id FROM runs) AND i.role IN ('base', 'train')
        AND (i.released_at IS NULL OR i.run_id = :run_id)
    GROUP BY p.source, f.commit, f.licence, p.licence_evidence
    ORDER BY p.source, f.commit NULLS FIRST, f.licence NULLS FIRST
    """
)


@dataclass(frozen=True, slots=True)
class Attribution:
    """Rows of one source at one commit under one licence (SPDX; None: not known), new in the run and in all."""

    source: str
    commit: str | None
    licence: str | None
    evidence: str | None
    rows: int
    rows_in_all: int


def stream_attributions(conn: sa.Connection, run_id: int) -> Iterator[Attribution]:
    """Yield what the version of a run was trained on, by source; through a cursor on the server."""
    options = {"stream_results": True, "yield_per": 1000}
    return (Attribution(*row) for row in conn.execute(_BY_SOURCE, {"run_id": run_id}, execution_options=options))
