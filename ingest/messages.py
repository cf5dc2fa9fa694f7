"""What the child that handles a repository says to the worker: one JSON document per line, checked when it is read.

The child has parsed hostile content, so its word is checked for form here and trusted for nothing that matters: units,
splits and content hashes are the worker's own. Its words become labels of metrics, so those that are not in these lists
are read as `other`.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from sourcecode.filters import REASONS
from sourcecode.near_duplicates import NUM_BANDS

OTHER: Final = "other"
# Why a file is refused: what its content and path say, and what kind of entry it is.
FILE_REASONS: Final = frozenset(
    (
        *REASONS,
        "licence",
        "symlink",
        "gitlink",
        "special",
        "path_encoding",
        "path_length",
        "unreadable",
        "exception",
        OTHER,
    )
)
# Why a visit fails, as far as the child says it.
FAILURES: Final = frozenset(
    (
        *("linked_git", "unreadable", "not_found", "no_access", "protocol", "corrupt", "clone_too_large"),
        *("private_host", "redirected", "not_git", "benchmark_list", "child_died"),
        *("clone_failed", "empty", "too_many_files", "out_of_memory", "disk_full", "exception", OTHER),
    )
)
STAGES: Final = frozenset(("clone", "list", "licence", "read", "judge", "compare", "report", OTHER))


def _only(known: frozenset[str]) -> AfterValidator:
    return AfterValidator(lambda word: word if word in known else OTHER)


def _count_only(known: frozenset[str]) -> AfterValidator:
    """Return what adds the figures of unknown words up under one."""

    def fold(figures: Mapping[str, float]) -> dict[str, float]:
        sums: Counter[str] = Counter()
        for word, figure in figures.items():
            sums[word if word in known else OTHER] += figure  # type: ignore[assignment]  # seconds are counted too
        return dict(sums)

    return AfterValidator(fold)


def _check_bands(bands: list[int]) -> list[int]:
    if len(bands) not in (0, NUM_BANDS):
        raise ValueError(f"{len(bands)} bands instead of {NUM_BANDS} or none")
    return bands


_Path = Annotated[str, Field(min_length=1, max_length=16_384)]
_Oid = Annotated[str, Field(pattern=r"^([0-9a-f]{40}([0-9a-f]{24})?)?$")]
_Word = Annotated[str, Field(pattern=r"^[a-z][a-z_]{1,40}$")]
_Level = Annotated[str, Field(pattern=r"^(repository|top|directory|file)$")]
_Number = Annotated[int, Field(ge=0, le=2**53)]
_Seconds = Annotated[float, Field(ge=0, le=1e7)]
_Band = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
_Text = Annotated[str, Field(max_length=500)]
_Tag = Annotated[str, Field(pattern=r"^[!-~]{1,100}$")]
_Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")] | None


class Message(BaseModel):
    """One line of the child's report."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Job(BaseModel):
    """What the worker asks of the child: the first line of its standard input."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str
    kind: Literal["git", "folder"]
    scratch: str
    licence: str | None
    """As the operator states it."""
    api_licence: str | None
    """As GitHub knows it."""
    allowed_licences: tuple[str, ...] | None
    """What a file must be under to be kept; None: whatever it is."""
    must_be_public: bool
    """The host was found, not named: no private network is spoken to for it, and https alone."""
    head: str | None
    """The commit of the last visit that was finished; a repository that still has it is not cloned."""
    known: dict[str, str]
    """Object ids of the accepted files by path, as they are stored: those that did not change are not read again."""
    refused: dict[str, tuple[str, str]]
    """Object ids and reasons of the refused files by path, those among them that had been accepted before."""
    by_other_rules: bool
    """The last visit judged by other rules: what did not change is judged again, too."""
    last_licence: str | None
    """The licence of the whole source at its last visit; with another one, too, everything is judged again."""
    limits: dict[str, Any]
    settings: dict[str, int]


class Listed(Message):
    """The tree was listed; `num_units` counts the units of the candidates at each level."""

    event: Literal["listed"] = "listed"
    head: _Commit
    num_entries: _Number
    num_candidates: _Number
    num_units: dict[_Level, _Number]

    @model_validator(mode="after")
    def _check_units(self) -> Self:
        """The level of the split units is decided by these: no more units than files, each file alone at the last."""
        files = self.num_units.get("file", 0)
        if self.num_candidates > self.num_entries or files > self.num_candidates:
            raise ValueError("more files than entries")
        if self.num_units.get("repository", 0) > 1 or max(self.num_units.values(), default=0) > files:
            raise ValueError("more units than files")
        return self


class Tagged(Message):
    """The release tags that the server named; what is missing among them is there no more."""

    event: Literal["tagged"] = "tagged"
    names: Annotated[tuple[_Tag, ...], Field(max_length=1000)]


class Accepted(Message):
    """A file that is kept."""

    event: Literal["accepted"] = "accepted"
    path: _Path
    oid: _Oid
    num_bytes: _Number
    language: _Word
    text: str
    score: Annotated[float, Field(ge=0, le=100)]
    detail: dict[str, Any]
    scorer_version: int
    licence: _Text | None
    bands: Annotated[list[_Band], AfterValidator(_check_bands)]


class Refused(Message):
    """A file that is not kept, and why."""

    event: Literal["refused"] = "refused"
    path: _Path
    oid: _Oid
    num_bytes: _Number
    reason: Annotated[_Word, _only(FILE_REASONS)]
    detail: _Text | None


class Ended(Message):
    """The visit is over. `refusals` counts all files that were not kept, those of unknown languages among them."""

    event: Literal["ended"] = "ended"
    head: _Commit
    licence: _Text | None
    licence_evidence: _Text
    refusals: Annotated[dict[_Word, _Number], _count_only(FILE_REASONS)]
    num_unchanged: _Number
    num_bytes: _Number
    vanished: list[_Path]
    stages: Annotated[dict[_Word, _Seconds], _count_only(STAGES)]


class Unchanged(Message):
    """The repository has no commit that the last visit did not see; nothing was cloned."""

    event: Literal["unchanged"] = "unchanged"
    head: str


class Failed(Message):
    """The visit came to nothing; a permanent failure would end the same way again."""

    event: Literal["failed"] = "failed"
    reason: Annotated[_Word, _only(FAILURES)]
    detail: _Text
    is_permanent: bool


AnyMessage = Tagged | Listed | Accepted | Refused | Ended | Unchanged | Failed
_ADAPTER: TypeAdapter[AnyMessage] = TypeAdapter(Annotated[AnyMessage, Field(discriminator="event")])


def read_message(line: bytes) -> AnyMessage:
    """Return the message of one line; raises pydantic's ValidationError, which never repeats the content."""
    return _ADAPTER.validate_json(line)
