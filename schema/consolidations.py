"""What says that a line's adapter should begin at the base again: the rounds since it did, and what it forgot."""

from dataclasses import dataclass

import sqlalchemy as sa

# What a unit cost is known for each promoted round. A held-out set that has grown within a unit is not compared.
_SINCE = sa.text(
    """
    WITH last_try AS (
        SELECT coalesce(max(number), 0) AS number FROM training_runs
        WHERE line_id = :line_id AND kind = 'consolidation'
    ),
    rounds AS (
        SELECT id, number, kind FROM training_runs
        WHERE line_id = :line_id AND kind <> 'base' AND state = 'promoted'
            AND number >= (SELECT number FROM last_try)
    ),
    costs AS (
        SELECT r.number, e.unit, e.num_bytes, e.value * e.num_bytes AS bits
        FROM rounds r JOIN evaluations e ON e.run_id = r.id
        WHERE e.model = 'candidate' AND e.eval_set = 'test' AND e.metric = 'bits_per_byte' AND e.unit <> ''
    ),
    firsts AS (SELECT DISTINCT ON (unit) * FROM costs ORDER BY unit, number)
    SELECT (SELECT count(*) FROM rounds WHERE kind = 'adapter') AS num_rounds,
        sum(c.bits) / nullif(sum(f.bits), 0) - 1 AS regression,
        EXISTS (
            SELECT FROM training_runs
            WHERE line_id = :line_id AND kind = 'adapter' AND state = 'held' AND reason = 'old_code_regressed'
                AND number > (SELECT number FROM last_try)
        ) AS was_held
    FROM costs c JOIN firsts f ON f.unit = c.unit AND f.num_bytes = c.num_bytes AND f.number < c.number
    WHERE c.number = (SELECT max(number) FROM rounds)
    """
)


@dataclass(frozen=True, slots=True)
class Since:
    """Since the line's last consolidation, however that ended, or since its first round."""

    num_rounds: int
    """Rounds that were promoted and continued an adapter."""
    regression: float | None
    """Relative rise of the bits that held-out units need, each since it was first measured; None: none was twice."""
    was_held: bool
    """Whether a round was held since then because it would have cost earlier code too much."""


def fetch_since_consolidation(conn: sa.Connection, line_id: int) -> Since:
    """Fetch what has happened to a line since its adapter was last tried to be made from the base."""
    return Since(*conn.execute(_SINCE, {"line_id": line_id}).one())
