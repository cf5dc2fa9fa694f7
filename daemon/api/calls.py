"""What a route is, what a call of it knows, and how it says no."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel
from sqlalchemy import Connection, Engine

from daemon.api.requests import Nothing
from daemon.config import DaemonSettings
from daemon.paths import LinePaths
from schema.lines import Line

# What an idempotency key may be.
KEY = "^[A-Za-z0-9_.:-]{1,200}$"
Scope = Literal["read", "train", "models", "sources", "config"]


class Refusal(Exception):
    """A request that is not done: an HTTP status, a short name for the kind of problem, and what to do about it."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: list[dict[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.errors, self.headers = errors or [], dict(headers or {})


@dataclass(frozen=True, slots=True)
class Call:
    """One call while it is handled: inside one transaction, which a Refusal rolls back."""

    conn: Connection
    engine: Engine
    line: Line
    configured: DaemonSettings
    paths: LinePaths
    caller: str  # name of the token; empty for who only reads
    path: Any
    query: Any
    body: Any
    key: str | None  # Idempotency-Key


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: where it is, what it takes and gives, and which scope it needs."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    rule: str
    name: str
    summary: str
    scope: Scope
    handle: Callable[[Call], BaseModel]
    answer: type[BaseModel]
    status: int = 200
    path: type[BaseModel] = Nothing
    query: type[BaseModel] = Nothing
    body: type[BaseModel] | None = None
    takes_key: bool = False
    problems: tuple[int, ...] = field(default=())  # beside those that any operation may answer with

    @property
    def changes(self) -> bool:
        """Whether it changes something: it is recorded then, and always needs a token."""
        return self.method != "GET"
