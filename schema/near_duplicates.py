"""What is near a staged file: candidates share a band with it (table near_dup_bands), and the texts decide."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from schema.candidate_texts import CandidateTexts

# The newest files of one band that are looked at, and the candidates of each kind whose texts are compared: the
# thousandth copy of a boilerplate costs what the tenth did.
MAX_PER_BAND = 32
MAX_CANDIDATES = 16
_ROWS_PER_BAND = 8

_FETCH_MARK = sa.text("SELECT coalesce(max(placed_in), 0) FROM processed_files")
_BY_BANDS = """
    SELECT s.ordinal, near.file_id, count(*) AS num_shared
    FROM (SELECT ordinal, unnest(bands) AS hash FROM staged_files ORDER BY hash) s
    CROSS JOIN LATERAL (
        SELECT b.file_id FROM near_dup_bands b
        WHERE b.hash = s.hash
        ORDER BY b.hash DESC, b.file_id DESC LIMIT :max_per_band
    ) near
    GROUP BY s.ordinal, near.file_id
"""
# What was found before the lock may have left, and what was placed since is in no earlier answer.
_KNOWN_AND_NEW = """
    SELECT * FROM unnest(CAST(:ordinals AS bigint[]), CAST(:ids AS bigint[]), CAST(:nums_shared AS bigint[]))
        AS known (ordinal, file_id, num_shared)
    UNION
    SELECT s.ordinal, f.id, count(*)
    FROM processed_files f
    CROSS JOIN LATERAL unnest(f.bands) AS theirs (hash)
    JOIN (SELECT ordinal, unnest(bands) AS hash FROM staged_files) s USING (hash)
    WHERE f.placed_in > :mark AND f.excluded_reason IS NULL
    GROUP BY s.ordinal, f.id
"""
# A past version of the same path is no candidate. What is kept and what was consumed and left have places of their own:
# the latter matters to held-out newcomers alone, but for them it must not be crowded out.
_RANK = """
    WITH found AS ({found}), ranked AS (
        SELECT s.ordinal, f.id, f.split, f.quality_score, f.excluded_reason IS NULL AS is_kept, found.num_shared,
            f.num_chars,
            row_number() OVER (
                PARTITION BY s.ordinal, f.excluded_reason IS NULL ORDER BY found.num_shared DESC, f.id
            ) AS place
        FROM found
        JOIN staged_files s USING (ordinal)
        JOIN processed_files f ON f.id = found.file_id
        WHERE NOT (f.repository_id = :repository_id AND f.file_path = s.file_path)
    )
    SELECT r.ordinal, r.id, r.split, r.quality_score, r.is_kept, EXISTS (
            SELECT FROM training_queue q WHERE q.item_kind = 'file' AND q.item_id = r.id AND q.run_id IS NOT NULL
        ), r.num_shared, r.num_chars
    FROM ranked r WHERE r.place <= :max_candidates
    ORDER BY r.ordinal, r.is_kept DESC, r.place
"""
_LOOK = sa.text(_RANK.format(found=_BY_BANDS))
_LOOK_AGAIN = sa.text(_RANK.format(found=_KNOWN_AND_NEW))


@dataclass(frozen=True, slots=True)
class NearRule:
    """From which similarity on two texts are near-duplicates (0 to 1), and what measures it."""

    threshold: float
    similarity: Callable[[str, str], float]


class Banded(Protocol):
    """A staged file, as far as it is compared."""

    @property
    def content(self) -> str:
        """The text."""

    @property
    def bands(self) -> Sequence[int]:
        """Its band hashes; empty where only an exact copy counts."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored file that shares bands with a staged one."""

    id: int
    split: str
    score: float
    is_kept: bool
    is_consumed: bool
    num_shared: int
    num_chars: int


class Neighbourhood:
    """The candidates of a batch, and how similar they are; what was measured once is remembered.

    Files go by their ordinal, their place in the batch.
    """

    def __init__(self, conn: sa.Connection, repository_id: int, files: Sequence[Banded], rule: NearRule | None) -> None:
        self._has_bands = any(file.bands for file in files)
        if rule is None and self._has_bands:
            raise ValueError("files with bands need a rule to compare them by")
        self._conn, self._repository_id, self._files, self._rule = conn, repository_id, files, rule
        self._similarities: dict[tuple[int, int], float] = {}
        self._texts = CandidateTexts(conn)
        self._stored: dict[int, list[Candidate]] = {}
        self._mark = 0

    def look(self) -> bool:
        """Look the stored candidates up before the lock; return whether anything may be near anything."""
        if not self._has_bands:
            return False
        self._mark = self._conn.execute(_FETCH_MARK).scalar_one()
        self._stored = self._fetch(_LOOK, {"max_per_band": MAX_PER_BAND})
        bands = [band for file in self._files for band in file.bands]
        return bool(self._stored) or len(set(bands)) < len(bands)

    def look_again(self) -> None:
        """Bring the candidates up to date under the lock: only what was placed since is compared."""
        if not self._has_bands:
            return
        if not self._stored and self._conn.execute(_FETCH_MARK).scalar_one() == self._mark:
            return
        known = [(ordinal, one.id, one.num_shared) for ordinal, found in self._stored.items() for one in found]
        values = {
            "ordinals": [ordinal for ordinal, _, _ in known],
            "ids": [file_id for _, file_id, _ in known],
            "nums_shared": [num for _, _, num in known],
            "mark": self._mark,
        }
        self._stored = self._fetch(_LOOK_AGAIN, values)

    def _fetch(self, query: sa.TextClause, values: dict[str, Any]) -> dict[int, list[Candidate]]:
        values |= {"repository_id": self._repository_id, "max_candidates": MAX_CANDIDATES}
        found: dict[int, list[Candidate]] = defaultdict(list)
        for ordinal, *candidate in self._conn.execute(query, values):
            found[ordinal].append(Candidate(*candidate))
        self._texts.expect(
            {
                ordinal: [one for one in candidates if (ordinal, one.id) not in self._similarities]
                for ordinal, candidates in found.items()
            }
        )
        return found

    def fetch_stored(self, ordinal: int) -> Sequence[Candidate]:
        """Return the stored candidates of a staged file, the likeliest first."""
        return self._stored.get(ordinal, ())

    def find_staged(self, ordinal: int, index: Mapping[int, Sequence[int]]) -> list[int]:
        """Return the staged candidates of a staged file by an index of the bands, the likeliest first."""
        shared = Counter(other for band in self._files[ordinal].bands for other in index.get(band, ()))
        return sorted(shared, key=lambda other: (-shared[other], other))[:MAX_CANDIDATES]

    def measure_stored(self, ordinal: int, candidate: Candidate) -> float | None:
        """Return the similarity of a staged and a stored file, None below the threshold.

        Of a stored one whose text was dropped the shared bands give the estimate.
        """
        key = (ordinal, candidate.id)
        if key not in self._similarities:
            text = self._texts.fetch(ordinal, candidate)
            self._similarities[key] = (
                _estimate(candidate.num_shared, len(self._files[ordinal].bands))
                if text is None
                else self._compare(self._files[ordinal].content, text)
            )
        return self._judge(self._similarities[key])

    def measure_staged(self, ordinal: int, other: int) -> float | None:
        """Return the similarity of two staged files, None below the threshold."""
        key = (ordinal, -1 - other)
        if key not in self._similarities:
            self._similarities[key] = self._compare(self._files[ordinal].content, self._files[other].content)
        return self._judge(self._similarities[key])

    def get_bands(self, ordinal: int) -> Sequence[int]:
        """Return the bands of a staged file."""
        return self._files[ordinal].bands

    def _compare(self, one: str, other: str) -> float:
        assert self._rule is not None  # noqa: S101 - checked at the start: without a rule nothing has bands
        return self._rule.similarity(one, other)

    def _judge(self, similarity: float) -> float | None:
        assert self._rule is not None  # noqa: S101
        return similarity if similarity >= self._rule.threshold else None


def _estimate(num_shared: int, num_bands: int) -> float:
    """Return the similarity at which this share of bands is to be expected.

    Many files lie below it that share as many, so that it says too much: at the default threshold one band of fourteen
    is enough. It decides only whether a held-out newcomer resembles what was trained on and dropped (I6): there a lost
    newcomer costs less than a leak.
    """
    return float((num_shared / num_bands) ** (1 / _ROWS_PER_BAND))
