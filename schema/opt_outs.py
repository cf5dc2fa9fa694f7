"""Opt-outs: patterns over owner/name whose code is not taken, and taking out what was stored of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.files import exclude_files
from schema.search_index import forget_repositories
from schema.tables import OptOut, ProcessedFile, Repository

REASON = "opted_out"


@dataclass(frozen=True, slots=True)
class Removed:
    """What an opt-out took out: sources, files kept from training, and contents dropped."""

    num_repositories: int
    num_files: int
    num_contents: int


# Where a source lies on its host, now or formerly, as the patterns name it.
_PATHS = sa.text(
    r"""
    SELECT id, lower(regexp_replace(address, '^[a-z]+://[^/]+/', ''))
    FROM repositories CROSS JOIN LATERAL unnest(ARRAY[source, moved_to]) AS address
    WHERE address LIKE '%://%'
    """
)
# A run that is open still reads its members, replayed ones too; the next call drops those.
_DROP_CONTENTS = sa.text(
    """
    UPDATE processed_files f SET content = NULL
    WHERE f.repository_id = ANY(:ids) AND f.content IS NOT NULL AND f.excluded_reason IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM training_run_items i JOIN training_runs r ON r.id = i.run_id
            WHERE i.item_kind = 'file' AND i.item_id = f.id AND r.state IN ('claimed', 'training', 'evaluating')
        )
    """
)


def add_opt_outs(conn: sa.Connection, patterns: Sequence[str]) -> None:
    """Record patterns; they hold from now on."""
    if patterns:
        rows = [{"pattern": pattern} for pattern in sorted(set(patterns))]  # in one order, as every lock is taken
        conn.execute(insert(OptOut).on_conflict_do_nothing(), rows)


def forget_opt_outs(conn: sa.Connection, patterns: Sequence[str]) -> int:
    """Take patterns back; return how many there were. What they took out comes back when it is added again."""
    return conn.execute(sa.delete(OptOut).where(OptOut.pattern.in_(patterns))).rowcount


def fetch_opt_outs(conn: sa.Connection) -> list[str]:
    """Fetch all patterns."""
    return list(conn.execute(sa.select(OptOut.pattern).order_by(OptOut.pattern)).scalars())


def is_opted_out(path: str, patterns: Sequence[str]) -> bool:
    """Say whether owner/name fits one of the patterns."""
    return any(fnmatchcase(path.lower(), pattern) for pattern in patterns)


def fetch_paths(conn: sa.Connection) -> list[tuple[int, str]]:
    """Fetch the id and owner/name of every remote source, and of those that have moved the new one too."""
    return [(repository_id, path) for repository_id, path in conn.execute(_PATHS)]


def remove_repositories(conn: sa.Connection, ids: Sequence[int]) -> Removed:
    """Take sources out of the queue, their files out of training for good, and drop the contents.

    A worker that is at one of them loses its claim. What was trained on stays accounted as such; its content goes.
    """
    of_these = Repository.id == sa.any_(sa.literal(list(ids), sa.ARRAY(sa.BigInteger)))
    # In one order, as save_found takes them: an UPDATE alone would lock them as they lie.
    locked = sa.select(Repository.id).where(of_these, Repository.reason.is_distinct_from(REASON))
    leaving = list(conn.execute(locked.order_by(Repository.id).with_for_update()).scalars())
    changed = (
        sa.update(Repository)
        .where(Repository.id == sa.any_(sa.literal(leaving, sa.ARRAY(sa.BigInteger))))
        .values(state="refused", reason=REASON, lease_token=None, lease_until=None)
    )
    num_repositories = conn.execute(changed).rowcount
    of_them = ProcessedFile.repository_id == sa.any_(sa.literal(list(ids), sa.ARRAY(sa.BigInteger)))
    files = list(conn.execute(sa.select(ProcessedFile.id).where(of_them)).scalars())
    num_files = exclude_files(conn, files, REASON) if files else 0
    num_contents = conn.execute(_DROP_CONTENTS, {"ids": list(ids)}).rowcount
    forget_repositories(conn, ids)
    return Removed(num_repositories, num_files, num_contents)
