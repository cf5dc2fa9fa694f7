"""What GitHub's search says of repositories, typed and cleaned; what cannot be read costs itself alone."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

PER_PAGE: Final = 100


class PageBroken(Exception):
    """A page of results without the fields that every one has."""


def _clean(value: Any) -> Any:
    """Make text that the database can store: no NUL, no lone surrogate."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "").encode(errors="replace").decode()


# What the database holds, and no arithmetic overflows on.
MAX_NUMBER = 1 << 53
_EARLIEST, _LATEST = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.datetime(2200, 1, 1, tzinfo=dt.UTC)
_Text = Annotated[str, BeforeValidator(_clean), Field(max_length=4096)]
_Id = Annotated[str, Field(pattern=r"^[!-~]{1,256}$")]
_Number = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
Time = Annotated[AwareDatetime, Field(ge=_EARLIEST, le=_LATEST)]
# A name of dots alone is a folder's.
_LOGIN = "[A-Za-z0-9_][A-Za-z0-9_-]{0,38}"
_FULL_NAME = rf"^{_LOGIN}/(?:\.{{0,2}}[A-Za-z0-9_-]|\.{{3}})[A-Za-z0-9._-]{{0,99}}$"


class _Licence(BaseModel):
    spdx_id: _Text | None = None


class Owner(BaseModel):
    """The account that a repository belongs to; accounts are numbered in the order in which they were made."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[int, Field(ge=1, le=MAX_NUMBER)]
    login: Annotated[str, Field(pattern=rf"^{_LOGIN}$")]


class Found(BaseModel):
    """One repository as a search result shows it."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    node_id: _Id
    full_name: Annotated[str, Field(pattern=_FULL_NAME)]
    account: Owner = Field(alias="owner")
    html_url: _Text
    clone_url: _Text
    description: _Text | None = None
    homepage: _Text | None = None
    language: _Text | None = None
    topics: list[_Text] = Field(default_factory=list, max_length=100)
    license: _Licence | None = None
    stargazers_count: _Number
    forks_count: _Number
    size: _Number  # KB
    fork: bool = False
    archived: bool = False
    disabled: bool = False
    private: bool = False
    mirror_url: _Text | None = None
    created_at: Time
    pushed_at: Time

    @property
    def owner(self) -> str:
        """Return the part of the name before the slash."""
        return self.full_name.partition("/")[0]

    @property
    def name(self) -> str:
        """Return the part of the name after the slash."""
        return self.full_name.partition("/")[2]

    @property
    def spdx(self) -> str | None:
        """Return the licence's SPDX id; GitHub's word for one it does not know is no licence."""
        spdx = self.license.spdx_id if self.license else None
        return None if spdx in (None, "NOASSERTION", "") else spdx


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a search."""

    total: int
    is_incomplete: bool
    num_items: int
    found: Sequence[Found]
    num_malformed: int


def read_page(body: Any) -> Page:
    """Return the page of a search's answer.

    Raises:
        PageBroken: it is none.
    """
    if not isinstance(body, dict):
        raise PageBroken("no page of a search: it is no object")
    total, is_incomplete, items = (body.get(name) for name in ("total_count", "incomplete_results", "items"))
    if type(total) is not int or not 0 <= total <= MAX_NUMBER:  # bool is an int too
        raise PageBroken("no page of a search: total_count is no number of repositories")
    if not isinstance(is_incomplete, bool):
        raise PageBroken("no page of a search: incomplete_results is neither true nor false")
    if not isinstance(items, list) or len(items) > PER_PAGE:
        raise PageBroken(f"no page of a search: items is no list of at most {PER_PAGE}")
    found = []
    for item in items:
        try:
            found.append(Found.model_validate(item))
        except ValidationError:
            continue
    return Page(total, is_incomplete, len(items), found, len(items) - len(found))
