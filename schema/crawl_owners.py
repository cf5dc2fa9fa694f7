"""When accounts were made: what GitHub was asked once, and what follows for others, since it numbers them in order."""

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.tables.crawl import CrawlOwner


def fetch_bounds(conn: sa.Connection, made_by: dt.datetime) -> tuple[int, int | None]:
    """Fetch the highest number of an account that was made by then, 0 for none, and the lowest of one made later."""
    is_old = CrawlOwner.created_at <= made_by
    bounds = sa.select(
        sa.func.coalesce(sa.func.max(CrawlOwner.id).filter(is_old), 0), sa.func.min(CrawlOwner.id).filter(~is_old)
    )
    old, young = conn.execute(bounds).one()
    return old, young


def save_owner(conn: sa.Connection, owner_id: int, login: str, created_at: dt.datetime) -> None:
    """Keep what GitHub said of an account."""
    row = insert(CrawlOwner).values(id=owner_id, login=login, created_at=created_at)
    conn.execute(row.on_conflict_do_nothing())
