"""What GitHub's search says of repositories, typed and cleaned; what cannot be read costs itself alone."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError


class PageBroken(Exception):
    """A page of results without the fields that every one has."""


def _clean(value: Any) -> Any:
    """Make text that the database can store: no NUL, no lone surrogate."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "").encode(errors="replace").decode()


_Text = Annotated[str, BeforeValidator(_clean), Field(max_length=4096)]


class _Licence(BaseModel):
    spdx_id: _Text | None = None


class Found(BaseModel):
    """One repository as a search result shows it."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    node_id: _Text
    full_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,38}/[A-Za-z0-9._-]{1,100}$")]
    clone_url: _Text
    description: _Text | None = None
    homepage: _Text | None = None
    language: _Text | None = None
    topics: list[_Text] = Field(default_factory=list, max_length=100)
    license: _Licence | None = None
    stargazers_count: Annotated[int, Field(ge=0)]
    forks_count: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(ge=0)]  # KB
    fork: bool = False
    archived: bool = False
    disabled: bool = False
    private: bool = False
    mirror_url: _Text | None = None
    created_at: dt.datetime
    pushed_at: dt.datetime

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
    try:
        total, is_incomplete, items = int(body["total_count"]), bool(body["incomplete_results"]), list(body["items"])
    except (TypeError, KeyError, ValueError) as error:
        raise PageBroken(f"no page of a search: {type(error).__name__}") from error
    found = []
    for item in items:
        try:
            found.append(Found.model_validate(item))
        except ValidationError:
            continue
    return Page(total, is_incomplete, len(items), found, len(items) - len(found))
