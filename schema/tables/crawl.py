"""How far the crawler has come in GitHub's search."""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import Base, now, one_of


class CrawlPass(Base):
    """How far the crawler has come with one language: a pass is over when all of its windows are."""

    __tablename__ = "crawl_passes"
    plan: Mapped[str] = mapped_column(primary_key=True)  # complete | terms
    language: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str | None]  # full | pushed: the pass that runs, none between two
    started_at: Mapped[dt.datetime | None]
    seen_until: Mapped[dt.datetime | None]  # every push before this was seen
    full_at: Mapped[dt.datetime | None]  # start of the last full pass that ended


class CrawlWindow(Base):
    """A question to GitHub's search, and how far its answer was read. Those of full passes stay: they tile it."""

    __tablename__ = "crawl_windows"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    plan: Mapped[str]
    language: Mapped[str]
    kind: Mapped[str]  # full | pushed
    root: Mapped[str]  # the query that it is a part of
    query: Mapped[str]
    box: Mapped[dict[str, Any]]
    max_pages: Mapped[int] = mapped_column(sa.SmallInteger)
    state: Mapped[str] = mapped_column(server_default="pending")
    cursor: Mapped[str | None]  # the page to read next
    total: Mapped[int | None]  # results, as GitHub counts them
    num_found: Mapped[int] = mapped_column(server_default="0")  # results read in this pass
    last_seen: Mapped[dt.datetime | None]  # when it was last read to its end
    reason: Mapped[str | None]  # why it is kept for later, or what of it stays hidden
    attempts: Mapped[int] = mapped_column(server_default="0")  # failed ones of this pass
    not_before: Mapped[dt.datetime | None]  # by the crawler's clock, on which it waits
    lease_until: Mapped[dt.datetime | None]
    lease_token: Mapped[str | None]
    __table_args__ = (
        sa.CheckConstraint(one_of("kind", ("full", "pushed")), name="kind"),
        sa.CheckConstraint(one_of("state", ("pending", "working", "done", "split", "kept")), name="state"),
        # split_window, open_pass: the same question is asked once
        sa.UniqueConstraint("plan", "query"),
        # claim_window: the oldest one that is left to read
        sa.Index(
            "ix_crawl_windows_claim",
            "plan",
            "language",
            "id",
            postgresql_where=sa.text("state IN ('pending', 'working')"),
        ),
    )


class CrawlPage(Base):
    """What a page was when it was last saved: while its ETag holds for that token, it need not be sent again."""

    __tablename__ = "crawl_pages"
    url: Mapped[str] = mapped_column(primary_key=True)
    token_id: Mapped[str] = mapped_column(primary_key=True)  # stands for the token; not the token
    etag: Mapped[str]
    next_url: Mapped[str | None]
    total: Mapped[int]
    num_items: Mapped[int]
    judged_by: Mapped[str] = mapped_column(server_default="")  # digest of the rules: other rules read it in full
    seen_at: Mapped[dt.datetime] = mapped_column(server_default=now())


class CrawlLimit(Base):
    """When one token may ask one resource again, for every process that has that token; times are the crawler's."""

    __tablename__ = "crawl_limits"
    token_id: Mapped[str] = mapped_column(primary_key=True)  # stands for the token; not the token
    resource: Mapped[str] = mapped_column(primary_key=True)  # search | core
    remaining: Mapped[int | None]  # requests left until resets_at, the one on its way not among them
    resets_at: Mapped[dt.datetime | None]
    closed_until: Mapped[dt.datetime | None]  # a refusal asked for this pause
    paced_until: Mapped[dt.datetime | None]  # so that the requests left are spread over the window
    asking_until: Mapped[dt.datetime | None]  # a request is on its way; of one whose process died nobody saw the answer


class CrawlOwner(Base):
    """When an account was made, as GitHub said once; accounts are numbered in that order."""

    __tablename__ = "crawl_owners"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    login: Mapped[str]
    created_at: Mapped[dt.datetime]
    checked_at: Mapped[dt.datetime] = mapped_column(server_default=now())
