"""Pages that the crawler has read, with their ETags: what need not be sent again, by token."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from schema.tables import CrawlPage


@dataclass(frozen=True, slots=True)
class SavedPage:
    """A page as it was when its results were saved."""

    url: str
    token_id: str
    etag: str
    next_url: str | None
    total: int
    num_items: int
    judged_by: str


def fetch_pages(conn: sa.Connection, url: str, rules: str) -> Mapping[str, SavedPage]:
    """Fetch what is known of a page that was judged by these rules, by token id."""
    names = [getattr(CrawlPage, name) for name in SavedPage.__slots__]
    known = sa.select(*names).where(CrawlPage.url == url, CrawlPage.judged_by == rules)
    return {row.token_id: SavedPage(**row._asdict()) for row in conn.execute(known)}


def save_page(conn: sa.Connection, page: SavedPage) -> None:
    """Remember a page, in the transaction that saves its results."""
    values = {name: getattr(page, name) for name in SavedPage.__slots__}
    changed = {name: values[name] for name in ("etag", "next_url", "total", "num_items", "judged_by")}
    new = insert(CrawlPage).values(values)
    conn.execute(
        new.on_conflict_do_update(index_elements=["url", "token_id"], set_={**changed, "seen_at": sa.func.now()})
    )


def forget_pages(conn: sa.Connection, *, unseen_for: dt.timedelta) -> int:
    """Drop the pages that nobody has asked for in so long; return how many."""
    old = sa.delete(CrawlPage).where(CrawlPage.seen_at < sa.func.now() - unseen_for)
    return conn.execute(old).rowcount
