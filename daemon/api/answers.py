"""What comes out of the API, as models: answers are made of them and described by them."""

import datetime as dt
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from schema.jobs import Job as JobRow


class Out(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, json_schema_serialization_defaults_required=True
    )


class Job(Out):
    """A request for a run, and what came of it."""

    id: str
    """How to ask for it."""
    state: Literal["queued", "running", "promoted", "held", "rejected", "failed", "cancelled"]
    """Queued until a run comes of it, which may answer several jobs; then running, then as the run ended."""
    forced: bool
    """Whether it trains on whatever is pending."""
    asked_by: str
    """Name of the token, or the user of the command line."""
    reason: str | None
    """Why, as it was asked."""
    run: int | None
    """Number of the run that came of it."""
    version: int | None
    """The version that the run made."""
    outcome: str | None
    """Why the run ended as it did."""
    created_at: dt.datetime
    """When it was asked for."""
    finished_at: dt.datetime | None
    """When it came to its end."""

    @classmethod
    def of(cls, row: JobRow) -> Self:
        """Show a job."""
        return cls.model_validate(row, from_attributes=True)


class Jobs(Out):
    """A page of jobs, newest first."""

    jobs: list[Job]
    """The jobs of the line."""
    next: str | None
    """Cursor of the next page; null on the last."""


class Control(Out):
    """Whether the line may train."""

    line: str
    """Name of the line."""
    paused: bool
    """Whether it starts no run, and stops the open one after a checkpoint."""


class Version(Out):
    """An immutable version."""

    number: int
    """Its number."""
    current: bool
    """Whether it is in service."""
    verdict: str
    """What the gate said: promoted, held or rejected; candidate until then."""
    run: int
    """The run that made it."""
    parent: int | None
    """The version that its run continued."""
    bits_per_byte: float | None
    """On the held-out files; lower is better."""
    incumbent_bits_per_byte: float | None
    """The same of the version that it was judged against."""
    manifest_digest: str
    """SHA-256 of its manifest."""
    num_bytes: int
    """Size of its files, bytes."""
    created_at: dt.datetime
    """When it was made."""


class Versions(Out):
    """A page of versions, newest first."""

    line: str
    """Name of the line."""
    current: int | None
    """The version in service."""
    versions: list[Version]
    """The versions of the line."""
    next: str | None
    """Cursor of the next page; null on the last."""


class Changed(Out):
    """A promotion or roll-back that was done."""

    current: int
    """The version in service now."""
    previous: int | None
    """The one before it."""
    changed: bool
    """False where it was in service already."""


class Repository(Out):
    """A source and its place in the queue."""

    id: int
    """Its number."""
    source: str
    """Address, or path on the service's machine."""
    kind: str
    """git or folder."""
    origin: str
    """Who named it: operator or crawler."""
    state: str
    """queued, working, done, refused or dead."""
    reason: str | None
    """Why it was refused, failed or given up."""
    licence: str | None
    """SPDX expression."""
    stars: int | None
    """On its host, where the crawler knows."""
    file_count: int
    """Files that were kept."""
    code_lines: int
    """Lines of them."""
    quality_score: float | None
    """Mean score of its files, 0 to 100."""
    refusals: dict[str, int]
    """Refused files of the last visit by reason."""
    visited_at: dt.datetime | None
    """End of the last visit."""


class Repositories(Out):
    """A page of repositories, newest first."""

    repositories: list[Repository]
    """The repositories."""
    next: str | None
    """Cursor of the next page; null on the last."""


class AddedSource(Out):
    """What became of one source."""

    source: str
    """Its address in canonical form."""
    outcome: Literal["added", "known", "opted_out"]
    """Known ones are visited again; opted-out ones are not taken."""
    id: int | None
    """Number of the repository."""


class AddedSources(Out):
    """What became of the sources, in their order."""

    sources: list[AddedSource]
    """One for each that was given."""


class Decision(Out):
    """What ticks decided, and why."""

    verdict: str
    """What to do."""
    reason: str
    """The one reason."""
    inputs: dict[str, Any]
    """What it rested on, the last time."""
    repeated: int
    """How many ticks in a row decided the same."""
    first_at: dt.datetime
    """The first of them."""
    last_at: dt.datetime
    """The last of them."""
    tick: str | None
    """The id of the last of them, as in its log lines; null for what an operator decided."""


class Decisions(Out):
    """A page of decisions, newest first."""

    decisions: list[Decision]
    """The decisions of the line."""
    next: str | None
    """Cursor of the next page; null on the last."""


class Snippet(Out):
    """A line of a file that was found."""

    line: int
    """Its number, from 1."""
    text: str
    """The line, without control characters."""
    matches: list[tuple[int, int]]
    """Begin and end of each match in it."""


class Hit(Out):
    """A repository or a file that was found."""

    kind: str
    """repository or file."""
    id: int
    """Its number."""
    repository: str
    """Address of the repository."""
    path: str | None
    """Of a file, in its repository."""
    language: str | None
    """In which it is written."""
    licence: str | None
    """SPDX expression."""
    score: float
    """Quality score."""
    is_named: bool
    """Whether every word is in its name, or is defined in it."""
    states: dict[str, str]
    """Of a file by line; of a repository its place in the queue."""
    snippets: list[Snippet]
    """Lines of a file that hold the words."""


class Hits(Out):
    """A page of what was found, the best first."""

    hits: list[Hit]
    """What was found."""
    next: str | None
    """Cursor of the next page; null on the last."""
