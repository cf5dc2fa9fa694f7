"""Lists for who pages through them: newest first, each page by the primary key, whatever was added meanwhile."""

import datetime as dt
from typing import Any

import sqlalchemy as sa

from schema.tables import ApiCall, Decision, Repository, TrainingRun, Version

_REPOSITORY = (
    *("id", "source", "kind", "origin", "state", "reason", "licence", "stars", "file_count", "code_lines"),
    *("quality_score", "refusals", "visited_at"),
)


def list_versions(
    conn: sa.Connection, line_id: int, *, limit: int, before: int | None = None, number: int | None = None
) -> list[dict[str, Any]]:
    """List versions with the number of their run and its gate's figures; `number` asks for one of them."""
    asked = (
        sa.select(Version.__table__, TrainingRun.number.label("run"), TrainingRun.figures["gate"].label("gate"))
        .join(TrainingRun, TrainingRun.id == Version.run_id)
        .where(Version.line_id == line_id)
        .order_by(Version.number.desc())
        .limit(limit)
    )
    asked = asked if before is None else asked.where(Version.number < before)
    asked = asked if number is None else asked.where(Version.number == number)
    return [dict(row) for row in conn.execute(asked).mappings()]


def list_decisions(conn: sa.Connection, line_id: int, *, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    """List what a line decided."""
    asked = sa.select(Decision.__table__).where(Decision.line_id == line_id).order_by(Decision.id.desc()).limit(limit)
    asked = asked if before is None else asked.where(Decision.id < before)
    return [dict(row) for row in conn.execute(asked).mappings()]


def list_repositories(
    conn: sa.Connection, *, limit: int, before: int | None = None, state: str | None = None
) -> list[dict[str, Any]]:
    """List sources, those in one state where one is given."""
    columns = [Repository.__table__.c[name] for name in _REPOSITORY]
    asked = sa.select(*columns).order_by(Repository.id.desc()).limit(limit)
    asked = asked if before is None else asked.where(Repository.id < before)
    asked = asked if state is None else asked.where(Repository.state == state)
    return [dict(row) for row in conn.execute(asked).mappings()]


def record_call(
    conn: sa.Connection,
    *,
    token: str,
    operation: str,
    path: str,
    address: str,
    status: int,
    detail: str | None = None,
) -> None:
    """Record a call of the API that was to change something; `token` is the token's name."""
    values = {"token": token, "operation": operation, "path": path, "address": address}
    conn.execute(sa.insert(ApiCall).values(**values, status=status, detail=detail))


def prune_calls(conn: sa.Connection, *, days: float, rows: int) -> int:
    """Remove records of calls that are older than so many days, or beyond the newest `rows`; return how many."""
    beyond = sa.select(ApiCall.id).order_by(ApiCall.id.desc()).offset(rows).limit(1).scalar_subquery()
    is_old = ApiCall.called_at < sa.func.now() - dt.timedelta(days=days)
    return conn.execute(sa.delete(ApiCall).where(sa.or_(is_old, ApiCall.id <= beyond))).rowcount


def list_calls(conn: sa.Connection, *, limit: int) -> list[dict[str, Any]]:
    """List the newest calls of the API that were to change something."""
    asked = sa.select(ApiCall.__table__).order_by(ApiCall.id.desc()).limit(limit)
    return [dict(row) for row in conn.execute(asked).mappings()]
