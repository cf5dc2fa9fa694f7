"""What the child that handles a repository says to the worker: one JSON document per line, checked when it is read.

The child has parsed hostile content, so its word is checked for form here and trusted for nothing that matters: units,
splits and content hashes are the worker's own.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

_Path = Annotated[str, Field(min_length=1, max_length=16_384)]
_Oid = Annotated[str, Field(pattern=r"^([0-9a-f]{40}([0-9a-f]{24})?)?$")]
_Word = Annotated[str, Field(pattern=r"^[a-z][a-z_]{1,40}$")]
_Text = Annotated[str, Field(max_length=500)]
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
    known: dict[str, str]
    """Object ids of the accepted files by path, as they are stored: those that did not change are not read again."""
    limits: dict[str, Any]
    settings: dict[str, int]


class Listed(Message):
    """The tree was listed; `num_units` counts the units of the candidates at each level."""

    event: Literal["listed"] = "listed"
    head: _Commit
    num_entries: int
    num_candidates: int
    num_units: dict[_Word, int]


class Accepted(Message):
    """A file that is kept."""

    event: Literal["accepted"] = "accepted"
    path: _Path
    oid: _Oid
    num_bytes: int
    language: _Word
    text: str
    score: Annotated[float, Field(ge=0, le=100)]
    detail: dict[str, Any]
    scorer_version: int
    licence: _Text | None


class Refused(Message):
    """A file that is not kept, and why."""

    event: Literal["refused"] = "refused"
    path: _Path
    oid: _Oid
    num_bytes: int
    reason: _Word
    detail: _Text | None


class Ended(Message):
    """The visit is over. `refusals` counts all files that were not kept, those of unknown languages among them."""

    event: Literal["ended"] = "ended"
    head: _Commit
    licence: _Text | None
    licence_evidence: _Text
    refusals: dict[_Word, int]
    num_unchanged: int
    num_bytes: int
    vanished: list[_Path]
    stages: dict[_Word, float]


class Failed(Message):
    """The visit came to nothing; a permanent failure would end the same way again."""

    event: Literal["failed"] = "failed"
    reason: _Word
    detail: _Text
    is_permanent: bool


AnyMessage = Listed | Accepted | Refused | Ended | Failed
_ADAPTER: TypeAdapter[AnyMessage] = TypeAdapter(Annotated[AnyMessage, Field(discriminator="event")])


def read_message(line: bytes) -> AnyMessage:
    """Return the message of one line; raises pydantic's ValidationError, which never repeats the content."""
    return _ADAPTER.validate_json(line)
