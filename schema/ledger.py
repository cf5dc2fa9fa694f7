"""The ledger's own SQL: which rows a run takes, what it replays, and giving rows back. Called by `schema.runs`."""

import sqlalchemy as sa

from schema.backlog import Limits, is_pending, lock_ingest
from schema.tables import CONSUMING_ROLES, QueueItem, RunItem

# `picked` locks what may be taken, in the index's order, and skips what another transaction holds: those rows stay
# pending. `fresh` counts before the cut by characters, so that a small cut cannot make a promised claim fail for ever.
_CLAIM = """
    WITH {picked},
    counted AS (
        SELECT *, row_number() OVER claim_order - 1 AS ordinal,
            sum(num_chars) OVER (claim_order ROWS UNBOUNDED PRECEDING) AS chars_so_far,
            count(*) FILTER (WHERE NOT waiting) OVER () AS num_fresh
        FROM picked
        WINDOW claim_order AS (ORDER BY unit_order, waiting, rank DESC, item_kind, item_id)
    ),
    taken AS (
        SELECT * FROM counted
        WHERE num_fresh >= :min_rows AND ordinal < coalesce(:max_rows, ordinal + 1)
            AND (ordinal = 0 OR chars_so_far <= coalesce(:max_chars_total, chars_so_far))
    ),
    marked AS (
        UPDATE training_queue q SET run_id = :run_id, waiting = false, quarantined_reason = NULL
        FROM taken t
        WHERE q.line_id = :line_id AND q.item_kind = t.item_kind AND q.item_id = t.item_id
    )
    INSERT INTO training_run_items (run_id, ordinal, line_id, item_kind, item_id, role, content_sha256)
    SELECT :run_id, t.ordinal, :line_id, t.item_kind, t.item_id, :role, f.content_sha256
    FROM taken t JOIN processed_files f ON t.item_kind = 'file' AND f.id = t.item_id
"""
_BEST_FIRST = """
    picked AS MATERIALIZED (
        SELECT item_kind, item_id, num_chars, waiting, rank, 0 AS unit_order FROM training_queue
        WHERE {pending}
        ORDER BY waiting, rank DESC, item_kind, item_id LIMIT :max_rows
        FOR UPDATE SKIP LOCKED
    )
"""
# Whole units in the order of their hashes: what one run takes says nothing about which units the next ones see.
_BY_HASH = """
    units AS MATERIALIZED (
        SELECT unit, row_number() OVER (ORDER BY sha256(convert_to(unit, 'UTF8'))) AS unit_order,
            count(*) OVER () AS num_units
        FROM (SELECT DISTINCT unit FROM training_queue WHERE {pending}) AS pending_units
    ),
    picked AS MATERIALIZED (
        SELECT item_kind, item_id, num_chars, waiting, rank, units.unit_order
        FROM training_queue JOIN units USING (unit)
        WHERE {pending} AND units.unit_order <= greatest(1, floor(:share * units.num_units))
        FOR UPDATE OF training_queue SKIP LOCKED
    )
"""
# The suspects to be tried next (schema/suspects.py), all of them: whatever the limits are by now.
_PROBE = """
    picked AS MATERIALIZED (
        SELECT item_kind, item_id, num_chars, waiting, rank, 0 AS unit_order FROM training_queue
        WHERE line_id = :line_id AND quarantined_reason = 'probe' AND run_id IS NULL AND excluded_reason IS NULL
        FOR UPDATE
    )
"""
# Rows that the line has consumed before and may see again, in the order of their hashes with the run's number.
_REPEAT = sa.text(
    """
    INSERT INTO training_run_items (run_id, ordinal, line_id, item_kind, item_id, role, content_sha256)
    SELECT :run_id, :first_ordinal + place - 1, :line_id, item_kind, item_id, :role, content_sha256
    FROM (
        SELECT *, row_number() OVER by_hash AS place, sum(num_chars) OVER by_hash AS chars_so_far
        FROM (
            SELECT i.item_kind, i.item_id, i.content_sha256, q.num_chars,
                sha256(convert_to(concat_ws(':', CAST(:number AS text), i.item_kind, i.item_id), 'UTF8')) AS hash
            FROM training_run_items i
            JOIN training_queue q USING (line_id, item_kind, item_id)
            JOIN processed_files f ON i.item_kind = 'file' AND f.id = i.item_id
            WHERE i.line_id = :line_id AND i.role = ANY(:of_roles) AND i.released_at IS NULL AND i.run_id <> :run_id
                AND q.excluded_reason IS NULL AND q.quarantined_reason IS NULL
                AND f.content IS NOT NULL AND f.content_sha256 = i.content_sha256
            ORDER BY hash, i.item_id LIMIT :num_rows
        ) AS sampled
        WINDOW by_hash AS (ORDER BY hash, item_id ROWS UNBOUNDED PRECEDING)
    ) AS counted
    WHERE chars_so_far <= coalesce(:max_chars, chars_so_far)
    """
)
_DIGEST = sa.text(
    """
    SELECT encode(sha256(convert_to(coalesce(string_agg(
        concat_ws(' ', ordinal, item_kind, item_id, role, content_sha256) || chr(10), '' ORDER BY ordinal
    ), ''), 'UTF8')), 'hex')
    FROM training_run_items WHERE run_id = :run_id
    """
)


def claim_items(
    conn: sa.Connection, run_id: int, line_id: int, limits: Limits, *, min_rows: int, role: str, share: float | None
) -> int:
    """Move pending items into a run, in order, in one statement; return how many (0: too few to choose from)."""
    values = {
        "run_id": run_id,
        "line_id": line_id,
        "min_rows": min_rows,
        "max_rows": limits.max_rows,
        "max_chars_total": limits.max_chars_total,
        "role": role,
        "share": share,
    }
    return conn.execute(_claim(line_id, limits, by_hash=share is not None), values).rowcount


def claim_probe(conn: sa.Connection, run_id: int, line_id: int) -> int:
    """Move the rows that are to be tried next into a run, in order; return how many (0: all excluded meanwhile)."""
    lock_ingest(conn)
    values = {"run_id": run_id, "line_id": line_id, "min_rows": 0, "max_rows": None, "max_chars_total": None}
    return conn.execute(sa.text(_CLAIM.format(picked=_PROBE)), values | {"role": "train"}).rowcount


def add_replay(
    conn: sa.Connection, run_id: int, line_id: int, number: int, *, first_ordinal: int, num_rows: int
) -> None:
    """Sample rows that the line has consumed before and may see again: the same ones for the same run number."""
    values = {"run_id": run_id, "line_id": line_id, "number": number, "first_ordinal": first_ordinal}
    what = {"role": "replay", "of_roles": list(CONSUMING_ROLES), "num_rows": num_rows, "max_chars": None}
    conn.execute(_REPEAT, values | what)


def add_retained(
    conn: sa.Connection, run_id: int, line_id: int, number: int, *, first_ordinal: int, limits: Limits
) -> None:
    """Add rows that adapters of the line were trained on and may see again, up to as many as a run may take.

    Those that its base was made of are left out: the base has them.
    """
    values = {"run_id": run_id, "line_id": line_id, "number": number, "first_ordinal": first_ordinal}
    most = {"num_rows": limits.max_rows, "max_chars": limits.max_chars_total}
    conn.execute(_REPEAT, values | most | {"role": "consolidation", "of_roles": ["train"]})


def digest_members(conn: sa.Connection, run_id: int) -> str:
    """Return the SHA-256 over lines of ordinal, item kind, item id, role and content hash, separated by blanks."""
    return str(conn.execute(_DIGEST, {"run_id": run_id}).scalar_one())


def release_items(conn: sa.Connection, run_id: int, *, waiting: bool) -> None:
    """Give a run's items back to the queue; the ledger keeps them, marked."""
    lock_ingest(conn)
    held = sa.update(RunItem).where(RunItem.run_id == run_id, RunItem.released_at.is_(None))
    conn.execute(held.values(released_at=sa.func.now()))
    queued = sa.update(QueueItem).where(QueueItem.run_id == run_id)
    conn.execute(queued.values(run_id=None, tries=QueueItem.tries + 1, waiting=waiting))


def _claim(line_id: int, limits: Limits, *, by_hash: bool) -> sa.TextClause:
    picked = _BY_HASH if by_hash else _BEST_FIRST
    return sa.text(_CLAIM.format(picked=picked.format(pending=_spell(is_pending(line_id, limits)))))


def _spell(condition: sa.ColumnElement[bool]) -> str:
    return str(condition.compile(compile_kwargs={"literal_binds": True}))
