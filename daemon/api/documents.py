"""What goes in and out of the API, as models: requests are checked by them, answers made of them.

Descriptions stand under the fields; the OpenAPI document is made from here, so it cannot drift from what is done.
"""

import datetime as dt
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schema.addresses import BadAddress, parse_address
from schema.jobs import Job as JobRow

# No control characters: a line break in a reason would be one in a log, and PostgreSQL stores no NUL.
_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
_PART = r"\.?[A-Za-z0-9_~+][A-Za-z0-9_.~+-]{0,98}"
_ADDRESS = rf"^https?://[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(:[0-9]{{1,4}})?(/{_PART})+/?$"
Reason = Annotated[str, Field(min_length=1, max_length=500, pattern=_LINE)]
# To JSON 1.0 and 1 are the same number.
Whole = Annotated[
    int, BeforeValidator(lambda given: int(given) if type(given) is float and given.is_integer() else given)
]
Number = Annotated[int, Field(ge=0, le=2**31 - 1)]


class _In(BaseModel):
    """A part of a request: nothing unknown, nothing converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class _Query(BaseModel):
    """A part of an address: text that stands for values."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Out(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, json_schema_serialization_defaults_required=True
    )


class Page(_Query):
    """Which part of a list."""

    limit: int = Field(50, ge=1, le=200)
    """Most entries to return."""
    cursor: str | None = Field(None, pattern=r"^[0-9]{1,18}$")
    """`next` of the page before; without it the newest."""

    @property
    def before(self) -> int | None:
        """The number that the page goes on after."""
        return None if self.cursor is None else int(self.cursor)


class RepositoryPage(Page):
    """Which part of the repositories."""

    state: Literal["queued", "working", "done", "refused", "dead"] | None = None
    """Only those in this state."""


class Nothing(_Query):
    """No parameters."""


class JobPath(_Query):
    """Which job."""

    job_id: str = Field(pattern=r"^[0-9a-f-]{36}$")
    """As the request for it was answered."""


class VersionPath(_Query):
    """Which version."""

    version: Number
    """Its number."""


class FineTune(_In):
    """A request for a run on whatever is pending."""

    reason: Reason | None = None
    """Why; it is shown with the job."""


class Retrain(_In):
    """A request for the next run."""

    force: bool = False
    """Train on whatever is pending; else as soon as the threshold is reached, as without a request."""
    reason: Reason | None = None
    """Why; it is shown with the job."""


class ChangeVersion(_In):
    """A promotion or roll-back."""

    reason: Reason
    """Why; it is recorded."""


class NewSource(_In):
    """A git repository to read."""

    source: str = Field(max_length=500, pattern=_ADDRESS, examples=["https://github.com/pallets/flask"])
    """Its https:// or http:// address. Folders of the service's machine are added there, by `codelupe ingest add`."""
    licence: str | None = Field(None, max_length=200, pattern=r"^[A-Za-z0-9.+() -]+$")
    """SPDX expression that it is under; without it the files say."""
    priority: Whole = Field(0, ge=-1000, le=1000)
    """Higher ones are handled first."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        try:
            parse_address(self.source)
        except BadAddress:
            raise
        except ValueError as error:
            raise BadAddress("not a git URL that is read here; use https://host/owner/name") from error
        return self


class NewSources(_In):
    """Git repositories to read."""

    sources: list[NewSource] = Field(min_length=1, max_length=100)
    """One that is there already is visited again."""


class Job(_Out):
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


class Jobs(_Out):
    """A page of jobs, newest first."""

    jobs: list[Job]
    """The jobs of the line."""
    next: str | None
    """Cursor of the next page; null on the last."""


class Control(_Out):
    """Whether the line may train."""

    line: str
    """Name of the line."""
    paused: bool
    """Whether it starts no run, and stops the open one after a checkpoint."""


class Version(_Out):
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


class Versions(_Out):
    """A page of versions, newest first."""

    line: str
    """Name of the line."""
    current: int | None
    """The version in service."""
    versions: list[Version]
    """The versions of the line."""
    next: str | None
    """Cursor of the next page; null on the last."""


class Changed(_Out):
    """A promotion or roll-back that was done."""

    current: int
    """The version in service now."""
    previous: int | None
    """The one before it."""
    changed: bool
    """False where it was in service already."""


class Repository(_Out):
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


class Repositories(_Out):
    """A page of repositories, newest first."""

    repositories: list[Repository]
    """The repositories."""
    next: str | None
    """Cursor of the next page; null on the last."""


class AddedSource(_Out):
    """What became of one source."""

    source: str
    """Its address in canonical form."""
    outcome: Literal["added", "known", "opted_out"]
    """Known ones are visited again; opted-out ones are not taken."""
    id: int | None
    """Number of the repository."""


class AddedSources(_Out):
    """What became of the sources, in their order."""

    sources: list[AddedSource]
    """One for each that was given."""


class Decision(_Out):
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


class Decisions(_Out):
    """A page of decisions, newest first."""

    decisions: list[Decision]
    """The decisions of the line."""
    next: str | None
    """Cursor of the next page; null on the last."""


class Fault(_Out):
    """One thing that is wrong with a request."""

    where: str
    """The field, parameter or header."""
    message: str
    """What is wrong with it."""


class Problem(_Out):
    """Why a request was not done (RFC 9457)."""

    type: str
    """A name for the kind of problem."""
    title: str
    """The same in words."""
    status: int
    """The HTTP status."""
    detail: str | None = None
    """What to do about it."""
    errors: list[Fault] = []
    """Each thing that is wrong with the request."""
