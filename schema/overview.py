"""What ingest has stored, for people: rates of the last hour, sums over everything, and one source file by file.

Sums are exact: they read an index or all sources, for a command that a person calls, not for a page that is polled.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from schema.tables import Repository

_RATES = sa.text(
    """
    SELECT count(*) AS repositories, CAST(coalesce(sum(visit_files), 0) AS bigint) AS files,
        CAST(coalesce(sum(visit_bytes), 0) AS bigint) AS bytes,
        least(3600, greatest(1, extract(epoch FROM now() - min(visited_at - make_interval(secs => visit_seconds)))))
            AS seconds
    FROM repositories
    WHERE visited_at > now() - interval '1 hour' AND visited_at <= now() AND visit_seconds IS NOT NULL
    """
)
_REFUSALS = sa.text(
    """
    SELECT r.reason, CAST(sum(CAST(r.num AS bigint)) AS bigint)
    FROM repositories, jsonb_each_text(refusals) AS r (reason, num)
    GROUP BY r.reason ORDER BY 2 DESC, r.reason
    """
)
_REFUSED_SOURCES = sa.text(
    """
    SELECT reason, count(*) FROM repositories WHERE state IN ('refused', 'dead') AND reason IS NOT NULL
    GROUP BY reason ORDER BY 2 DESC, reason
    """
)
# By all columns of ix_processed_files_counts at once: two groupings cost three times as much as one and adding up.
_ROWS = sa.text(
    """
    SELECT language, split, excluded_reason, licence, count(*) AS num
    FROM processed_files GROUP BY language, split, excluded_reason, licence
    """
)
_FIND_SOURCE = sa.text("SELECT * FROM repositories WHERE source = :source OR moved_to = :source ORDER BY id LIMIT 1")
_FILES = sa.text(
    """
    SELECT f.file_path AS path, f.language, f.quality_score AS score, f.score_detail AS detail, f.licence, f.num_lines,
        f.split, f.excluded_reason AS excluded, f.near_dup_similarity AS similarity, other.file_path AS copy_of_path,
        source.source AS copy_of_source
    FROM processed_files f
    LEFT JOIN processed_files other ON other.id = f.near_dup_of
    LEFT JOIN repositories source ON source.id = other.repository_id
    WHERE f.repository_id = :repository_id AND coalesce(f.excluded_reason, '') NOT IN ('superseded', 'vanished')
    ORDER BY f.file_path
    """
)
_REFUSED = sa.text(
    """
    SELECT file_path AS path, reason, detail, num_bytes FROM refused_files WHERE repository_id = :repository_id
    ORDER BY reason, file_path
    """
)
_CAPPED = sa.text(
    """
    SELECT DISTINCT f.file_path
    FROM training_queue q JOIN processed_files f ON q.item_kind = 'file' AND f.id = q.item_id
    WHERE f.repository_id = :repository_id AND q.excluded_reason = 'owner_cap'
    """
)


def fetch_rates(conn: sa.Connection) -> dict[str, float]:
    """Return files and bytes a second and repositories an hour of the visits that ended within the last hour."""
    row = conn.execute(_RATES).one()
    seconds = float(row.seconds or 1)
    return {
        "files_per_s": row.files / seconds,
        "bytes_per_s": row.bytes / seconds,
        "repositories_per_h": row.repositories * 3600 / seconds,
    }


def sum_refusals(conn: sa.Connection) -> dict[str, int]:
    """Sum the refused files of every source's last visit by reason, the most frequent first."""
    return {reason: num for reason, num in conn.execute(_REFUSALS)}  # noqa: C416 - a Row is no pair to mypy


def count_refused_sources(conn: sa.Connection) -> dict[str, int]:
    """Count the sources that were given up by reason, the most frequent first."""
    return {reason: num for reason, num in conn.execute(_REFUSED_SOURCES)}  # noqa: C416


def count_rows(conn: sa.Connection) -> dict[str, Any]:
    """Count stored files, the most frequent first: kept ones by language and split, by licence; excluded by reason."""
    kept: dict[str, Counter[str]] = {}
    excluded: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    for row in conn.execute(_ROWS):
        if row.excluded_reason is not None:
            excluded[row.excluded_reason] += row.num
        else:
            kept.setdefault(row.language, Counter())[row.split] += row.num
            licences[row.licence or "not stated"] += row.num
    languages = sorted(kept, key=lambda language: (-kept[language].total(), language))
    rows = {language: dict(kept[language].most_common()) for language in languages}
    return {"rows": rows, "excluded": dict(excluded.most_common()), "licences": dict(licences.most_common())}


def find_source(conn: sa.Connection, source: str) -> dict[str, Any] | None:
    """Fetch the repository row of a source by its address or path, also by the one that it has moved to."""
    row = conn.execute(_FIND_SOURCE, {"source": source}).mappings().one_or_none()
    return None if row is None else dict(row)


def find_similar_sources(conn: sa.Connection, text: str, *, limit: int) -> list[str]:
    """Fetch the sources whose address or path has this text in it, letter case aside, the shortest first."""
    similar = sa.select(Repository.source).where(Repository.source.icontains(text, autoescape=True))
    return list(conn.execute(similar.order_by(sa.func.length(Repository.source), Repository.id).limit(limit)).scalars())


def fetch_files(conn: sa.Connection, repository_id: int) -> Iterator[dict[str, Any]]:
    """Yield the present files of a source with their scores, and why one is not trained on."""
    capped = set(conn.execute(_CAPPED, {"repository_id": repository_id}).scalars())
    for row in conn.execute(_FILES, {"repository_id": repository_id}).mappings():
        is_capped = row["excluded"] is None and row["path"] in capped
        yield {**row, "excluded": "owner_cap" if is_capped else row["excluded"]}


def fetch_refused(conn: sa.Connection, repository_id: int) -> list[dict[str, Any]]:
    """Fetch the files of a source that were refused, by reason."""
    return [dict(row) for row in conn.execute(_REFUSED, {"repository_id": repository_id}).mappings()]
