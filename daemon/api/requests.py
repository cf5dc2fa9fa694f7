"""What goes into the API, as models: requests are checked by them and described by them.

Descriptions stand under the fields; the OpenAPI document is made from here, so it cannot drift from what is done.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schema.addresses import BadAddress, parse_address
from schema.search import FILE_STATES, MAX_LIMIT, REPOSITORY_STATES

# No control characters: a line break in a reason would be one in a log, and PostgreSQL stores no NUL.
_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
_PART = r"\.?[A-Za-z0-9_~+][A-Za-z0-9_.~+-]{0,98}"
_ADDRESS = rf"^https?://[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(:[0-9]{{1,4}})?(/{_PART})+/?$"
Reason = Annotated[str, Field(min_length=1, max_length=500, pattern=_LINE)]
Text = Annotated[str, Field(max_length=500, pattern=_LINE)]
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


class SearchPage(_Query):
    """What to look for, and which part of what was found."""

    q: str = Field(min_length=1, max_length=400, pattern=_LINE)
    """Words that must all be there; `word*` begins so, `-word` must not be there."""
    kind: Literal["repository", "file"] | None = None
    """Only repositories, or only files."""
    language: str | None = Field(None, max_length=50, pattern=_LINE)
    """Only in this language."""
    licence: str | None = Field(None, max_length=200, pattern=_LINE)
    """Only under this SPDX expression."""
    state: Literal[*FILE_STATES, *REPOSITORY_STATES] | None = None  # type: ignore[valid-type]
    """Only in this state: of a file in training, of a repository in the queue."""
    limit: int = Field(20, ge=1, le=MAX_LIMIT)
    """Most hits to return."""
    cursor: str | None = Field(None, max_length=500, pattern=_LINE)
    """`next` of the page before; without it the best."""


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


class SettingPath(_Query):
    """Which setting."""

    name: str = Field(pattern=r"^[a-z_]{1,60}$", examples=["threshold_rows"])
    """Its name, as in the configuration's section `daemon`."""


class ChangeSetting(_In):
    """What a setting is to be."""

    value: bool | Whole | float | Text | list[Text] | None
    """As the configuration has it: a number, a text, a list of texts, or null for what may be unset."""
    reason: Reason
    """Why; it is recorded."""


class RestoreSetting(_Query):
    """Why a setting is to be as configured again."""

    reason: Reason | None = None
    """It is recorded."""


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
