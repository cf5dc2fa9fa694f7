"""Where files come from: repositories and their place in the clone queue, and whose code is never taken."""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import Base, now, one_of


class Repository(Base):
    """A source of files, and its place in the clone queue."""

    __tablename__ = "repositories"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    source: Mapped[str] = mapped_column(unique=True)  # canonical URL, or absolute local path
    kind: Mapped[str]  # git | folder
    origin: Mapped[str]  # operator | crawler
    host: Mapped[str | None]
    owner: Mapped[str | None]
    name: Mapped[str]
    stars: Mapped[int | None]
    forks: Mapped[int | None]
    language: Mapped[str | None]
    topics: Mapped[list[str]] = mapped_column(sa.ARRAY(sa.Text), server_default="{}")
    licence: Mapped[str | None]  # SPDX expression
    licence_evidence: Mapped[str | None]
    quality_score: Mapped[float | None]
    head_commit: Mapped[str | None]
    local_path: Mapped[str | None]  # while a clone of it exists
    code_lines: Mapped[int] = mapped_column(server_default="0")
    file_count: Mapped[int] = mapped_column(server_default="0")
    # The level of its split units (I6): repository | top | directory | file. Decided at its first ingest, then fixed.
    unit_level: Mapped[str | None]
    # Counts of refused files by reason at the last visit: {"binary": 3, "language": 120}.
    refusals: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    state: Mapped[str] = mapped_column(server_default="queued")
    priority: Mapped[int] = mapped_column(server_default="0")  # higher first
    not_before: Mapped[dt.datetime] = mapped_column(server_default=now())
    lease_until: Mapped[dt.datetime | None]
    lease_token: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    reason: Mapped[str | None]  # why it was refused, failed or died
    created_at: Mapped[dt.datetime] = mapped_column(server_default=now())
    visited_at: Mapped[dt.datetime | None]
    judged_by: Mapped[str | None]  # fingerprint of the rules of its last visit, with what else was said of its licence
    # What the crawler knows of it: GitHub's own id, which a rename does not change, where the repository has moved
    # since `source` was its address, and what its search result promised before anything was cloned.
    node_id: Mapped[str | None] = mapped_column(unique=True)
    moved_to: Mapped[str | None]
    pushed_at: Mapped[dt.datetime | None]
    size_kb: Mapped[int | None]
    api_licence: Mapped[str | None]  # SPDX id, as GitHub sees it
    description: Mapped[str | None]  # its owner's, for the search
    repository_score: Mapped[float | None]
    score_detail: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    # What its last visit that went well looked at, for the rates of `ingest status`.
    visit_files: Mapped[int | None]
    visit_bytes: Mapped[int | None]
    visit_seconds: Mapped[float | None]
    tags_read_at: Mapped[dt.datetime | None]  # when its release tags were last read
    __table_args__ = (
        sa.CheckConstraint(one_of("kind", ("git", "folder")), name="kind"),
        sa.CheckConstraint(one_of("origin", ("operator", "crawler")), name="origin"),
        sa.CheckConstraint(one_of("state", ("queued", "working", "done", "refused", "dead")), name="state"),
        # queue_due: what the operator named and was visited long ago
        sa.Index("ix_repositories_due", "visited_at", postgresql_where=sa.text("origin = 'operator'")),
        # queue_outdated: the one whose visit is longest ago
        sa.Index("ix_repositories_visited_at", "visited_at"),
        # claim_repository: the best queued one whose time has come, or one whose lease ran out
        sa.Index(
            "ix_repositories_claim",
            sa.text("priority DESC"),
            "id",
            postgresql_where=sa.text("state IN ('queued', 'working')"),
        ),
    )


class ReleaseTag(Base):
    """A tag that names a release of a repository."""

    __tablename__ = "release_tags"
    repository_id: Mapped[int] = mapped_column(sa.ForeignKey("repositories.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[dt.datetime | None]  # by the first visit that saw it; NULL: it was there when tags were first read


class OptOut(Base):
    """Whose code is never taken: owner/name or a glob over it, in lower case."""

    __tablename__ = "opt_outs"
    pattern: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[dt.datetime] = mapped_column(server_default=now())
