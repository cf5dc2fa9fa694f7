"""What was changed of a line's settings while its daemon ran: what holds now, and the history."""

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on

from schema.tables import Line, SettingChange


@dataclass(frozen=True, slots=True)
class Change:
    """One change; `is_set` is false where the configured value holds again. Values are as JSON has them."""

    name: str
    value: Any
    previous: Any
    is_set: bool
    actor: str
    reason: str | None
    created_at: dt.datetime


def fetch_changed(conn: sa.Connection, line_id: int) -> dict[str, Change]:
    """Fetch the changes that hold, by the name of the setting."""
    newest = (
        sa.select(SettingChange.__table__)
        .where(SettingChange.line_id == line_id)
        .order_by(SettingChange.name, SettingChange.id.desc())
        .ext(distinct_on(SettingChange.name))
    )
    found = map(_read, conn.execute(newest).mappings())
    return {change.name: change for change in found if change.is_set}


def lock_changes(conn: sa.Connection, line_id: int) -> None:
    """Let nobody else change a setting of the line until the transaction ends."""
    conn.execute(sa.select(Line.id).where(Line.id == line_id).with_for_update())


def record_change(
    conn: sa.Connection,
    line_id: int,
    name: str,
    *,
    value: Any,
    previous: Any,
    is_set: bool,
    actor: str,
    reason: str | None,
) -> None:
    """Record a change; without `is_set` the configured value holds again."""
    told = {"value": json.dumps(value) if is_set else None, "previous": json.dumps(previous)}
    new = sa.insert(SettingChange).values(line_id=line_id, name=name, actor=actor, reason=reason, **told)
    conn.execute(new)


def list_changes(conn: sa.Connection, line_id: int, *, limit: int) -> list[Change]:
    """List the newest changes, newest first."""
    asked = sa.select(SettingChange.__table__).where(SettingChange.line_id == line_id)
    return [_read(row) for row in conn.execute(asked.order_by(SettingChange.id.desc()).limit(limit)).mappings()]


def _read(row: sa.RowMapping) -> Change:
    is_set = row["value"] is not None
    kept = {name: row[name] for name in ("name", "actor", "reason", "created_at")}
    value = json.loads(row["value"]) if is_set else None
    return Change(value=value, previous=json.loads(row["previous"]), is_set=is_set, **kept)
