"""The windows of an API's limits, kept where every process with the same tokens finds them, also after a restart."""

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.tables.crawl import CrawlLimit

RESOURCES = ("core", "search")


@dataclass(slots=True)
class LimitWindow:
    """What is known of one token's limit on one resource; a time that is None or past closes nothing."""

    token_id: str
    resource: str
    remaining: int | None = None
    resets_at: dt.datetime | None = None
    closed_until: dt.datetime | None = None
    paced_until: dt.datetime | None = None
    asking_until: dt.datetime | None = None


Windows = Mapping[tuple[str, str], LimitWindow]
_COLUMNS = [getattr(CrawlLimit, name) for name in LimitWindow.__slots__]
_SAVE = sa.text(
    """
    UPDATE crawl_limits AS l SET remaining = x.remaining, resets_at = x.resets_at, closed_until = x.closed_until,
        paced_until = x.paced_until, asking_until = x.asking_until
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS x (
        token_id text, resource text, remaining bigint, resets_at timestamptz, closed_until timestamptz,
        paced_until timestamptz, asking_until timestamptz
    )
    WHERE l.token_id = x.token_id AND l.resource = x.resource
    """
)


@contextmanager
def open_limits(engine: sa.Engine, token_ids: Sequence[str]) -> Iterator[Windows]:
    """Yield the windows of these tokens by token and resource, for us alone until what was changed is saved."""
    with engine.begin() as conn:
        found = _lock(conn, token_ids)
        if len(found) < len(RESOURCES) * len(token_ids):
            rows = [{"token_id": token_id, "resource": resource} for token_id in token_ids for resource in RESOURCES]
            conn.execute(insert(CrawlLimit).on_conflict_do_nothing(), rows)
            found = _lock(conn, token_ids)
        windows = {(window.token_id, window.resource): replace(window) for window in found}
        yield windows
        changed = [asdict(window) for window, was in zip(windows.values(), found, strict=True) if window != was]
        if changed:
            conn.execute(_SAVE, {"rows": json.dumps(changed, default=str)})


def _lock(conn: sa.Connection, token_ids: Sequence[str]) -> list[LimitWindow]:
    # In one order, so that two processes with the same tokens wait for each other instead of for ever.
    rows = sa.select(*_COLUMNS).where(CrawlLimit.token_id.in_(token_ids))
    ordered = rows.order_by(CrawlLimit.token_id, CrawlLimit.resource).with_for_update()
    return [LimitWindow(**row._asdict()) for row in conn.execute(ordered)]
