"""A refusal as callers read it."""

from pydantic import Field

from daemon.api.answers import Out


class Fault(Out):
    """One thing that is wrong with a request."""

    where: str
    """The field, parameter or header."""
    message: str
    """What is wrong with it."""


class Problem(Out):
    """Why a request was not done (RFC 9457)."""

    type: str
    """A name for the kind of problem."""
    title: str
    """The same in words."""
    status: int
    """The HTTP status."""
    detail: str | None = None
    """What to do about it."""
    errors: list[Fault] = Field(default_factory=list)
    """Each thing that is wrong with the request."""
