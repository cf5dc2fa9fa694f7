"""Which of several copies of a content is kept (I6): the decision, without a statement of SQL.

The first placement wins. Only where all that a newcomer is near to is pending, of its own split and of a lower score
does it take their place.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from schema.near_duplicates import Candidate, Neighbourhood

# Only these are trained on; what is held out stays as it was first placed.
_PENDING_SPLIT = "train"


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A staged file that is to be stored: its final unit and split, and its exact copy among what is kept."""

    ordinal: int
    file_path: str
    content_sha256: str
    unit: str
    split: str
    score: float
    twin_id: int | None
    twin_split: str | None


@dataclass(frozen=True, slots=True)
class Placement:
    """Kept, or excluded with a reason: as a copy of a stored file (`of_id`) or of a staged one (`of_ordinal`)."""

    newcomer: Newcomer
    reason: str | None = None
    of_id: int | None = None
    of_ordinal: int | None = None
    similarity: float | None = None  # of near ones; exact ones have none


@dataclass(frozen=True, slots=True)
class _Near:
    """Something kept that a newcomer is near to, and whether the newcomer may take its place."""

    split: str
    similarity: float
    gives_way: bool
    id: int | None = None
    ordinal: int | None = None


class Choice:
    """The placements of a batch, decided one by one; `beaten` maps each stored file that gives way to who takes over.

    Files of `pinned` ids do not give way.
    """

    def __init__(self, newcomers: Iterable[Newcomer], neighbours: Neighbourhood, pinned: Collection[int]) -> None:
        self._neighbours, self._pinned = neighbours, pinned
        self._index: dict[int, list[int]] = {}  # of the bands of what is kept
        self._firsts: dict[str, int] = {}
        self._placed: dict[int, Placement] = {}
        self.beaten: dict[int, tuple[int, float]] = {}
        for newcomer in newcomers:
            self._placed[newcomer.ordinal] = self._place(newcomer)

    @property
    def placements(self) -> list[Placement]:
        """The decisions, in the batch's order; who is a copy of a staged file is one of what is kept in the end."""
        return [self._resolve(placement) for placement in self._placed.values()]

    def _resolve(self, placement: Placement) -> Placement:
        last = placement.of_ordinal
        if last is None or (kept := self.follow(last)) == last:
            return placement
        reason = "near_duplicate" if placement.reason == "duplicate" else placement.reason
        return replace(placement, of_ordinal=kept, reason=reason, similarity=None)

    def follow(self, ordinal: int) -> int:
        """Return the staged file that is kept in the end where this one was: itself or who took its place."""
        while (taker := self._placed[ordinal].of_ordinal) is not None:
            ordinal = taker
        return ordinal

    def _place(self, new: Newcomer) -> Placement:
        if new.twin_id is not None and new.twin_split is not None:
            return Placement(new, _name_reason(new.split, new.twin_split, "duplicate"), of_id=new.twin_id)
        first = self._firsts.get(new.content_sha256)
        if first is not None and self._placed[first].reason is None:
            reason = _name_reason(new.split, self._placed[first].newcomer.split, "duplicate")
            return Placement(new, reason, of_ordinal=first)
        giving_way = []
        for near in self._find_near(new):
            if not near.gives_way:
                reason = _name_reason(new.split, near.split, "near_duplicate")
                return Placement(new, reason, near.id, near.ordinal, near.similarity)
            giving_way.append(near)
        self._keep(new, giving_way)
        return Placement(new)

    def _find_near(self, new: Newcomer) -> Iterable[_Near]:
        for candidate in self._neighbours.fetch_stored(new.ordinal):
            if not self._is_compared(new, candidate):
                continue
            similarity = self._neighbours.measure_stored(new.ordinal, candidate)
            if similarity is not None:
                may = candidate.is_kept and not candidate.is_consumed and candidate.id not in self._pinned
                gives_way = may and _is_better(new, candidate.split, candidate.score)
                yield _Near(candidate.split, similarity, gives_way, id=candidate.id)
        for ordinal in self._neighbours.find_staged(new.ordinal, self._index):
            similarity = self._neighbours.measure_staged(new.ordinal, ordinal)
            if similarity is not None:
                other = self._placed[ordinal].newcomer
                gives_way = _is_better(new, other.split, other.score)
                yield _Near(other.split, similarity, gives_way, ordinal=ordinal)

    def _is_compared(self, new: Newcomer, candidate: Candidate) -> bool:
        if candidate.is_kept:
            return candidate.id not in self.beaten
        return candidate.is_consumed and new.split != _PENDING_SPLIT and candidate.split == _PENDING_SPLIT

    def _keep(self, new: Newcomer, giving_way: Iterable[_Near]) -> None:
        for near in giving_way:
            if near.id is not None:
                self.beaten[near.id] = (new.ordinal, near.similarity)
            elif near.ordinal is not None:
                loser = self._placed[near.ordinal].newcomer
                self._placed[near.ordinal] = Placement(
                    loser, "near_duplicate", of_ordinal=new.ordinal, similarity=near.similarity
                )
                for band in self._neighbours.get_bands(near.ordinal):
                    self._index[band].remove(near.ordinal)
        self._firsts[new.content_sha256] = new.ordinal
        for band in self._neighbours.get_bands(new.ordinal):
            self._index.setdefault(band, []).append(new.ordinal)


def _is_better(new: Newcomer, split: str, score: float) -> bool:
    return new.split == split == _PENDING_SPLIT and new.score > score


def _name_reason(split: str, kept_split: str, same: str) -> str:
    """Return why a copy in `split` of one that is kept in `kept_split` is excluded; `same` for one split."""
    if split == kept_split:
        return same
    return "near_trained" if kept_split == "train" else "near_held_out"
