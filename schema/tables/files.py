"""What was read of the sources: accepted files, the bands that find their near-duplicates, and what was refused."""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import SPLITS, Base, now, one_of


class ProcessedFile(Base):
    """One version of one accepted file. A row is never deleted; what leaves the pending queue says why."""

    __tablename__ = "processed_files"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    repository_id: Mapped[int] = mapped_column(sa.ForeignKey("repositories.id"))
    file_path: Mapped[str]
    commit: Mapped[str | None]
    blob_oid: Mapped[str]  # git's object id of the content, computed alike for files outside git
    language: Mapped[str]
    content: Mapped[str | None]  # dropped by retention, the accounting stays
    content_sha256: Mapped[str]
    num_chars: Mapped[int]
    num_lines: Mapped[int]
    quality_score: Mapped[float]
    score_detail: Mapped[dict[str, Any]]
    scorer_version: Mapped[int]
    licence: Mapped[str | None]
    owner: Mapped[str]  # whose code it is, so that no owner outweighs the others
    unit: Mapped[str]
    split: Mapped[str]
    near_dup_of: Mapped[int | None] = mapped_column(sa.ForeignKey("processed_files.id"))
    near_dup_similarity: Mapped[float | None]  # to near_dup_of (Jaccard); not of exact copies
    bands: Mapped[list[int] | None] = mapped_column(sa.ARRAY(sa.BigInteger))  # MinHash; none for very short files
    bands_version: Mapped[int | None]  # of the way in which they were made; NULL: not made yet
    # Number of the placement under the ingest lock that decided this row: what came later has a higher one.
    placed_in: Mapped[int | None]
    # duplicate | near_duplicate | near_held_out | near_trained | superseded | vanished | …: keeps it from being claimed
    excluded_reason: Mapped[str | None]
    excluded_seen_at: Mapped[dt.datetime | None]  # by retention, which counts from here
    created_at: Mapped[dt.datetime] = mapped_column(server_default=now())
    __table_args__ = (
        # save_files: ingesting the same thing again adds nothing; fetch_known_files: by repository
        sa.UniqueConstraint("repository_id", "file_path", "blob_oid"),
        sa.CheckConstraint(one_of("split", SPLITS), name="split"),
        # save_files: is this content stored already, and in which split?
        sa.Index("ix_processed_files_content_sha256", "content_sha256"),
        # Neighbourhood.look_again: what was placed since, and the last number
        sa.Index("ix_processed_files_placed_in", "placed_in"),
        # promote_duplicates: the copies of a file that leaves
        sa.Index("ix_processed_files_near_dup_of", "near_dup_of", postgresql_where=sa.text("near_dup_of IS NOT NULL")),
        # count_rows: `ingest status`, whose sums need nothing else
        sa.Index("ix_processed_files_counts", "language", "split", "excluded_reason", "licence"),
        # count_prunable: contents that retention may drop
        sa.Index(
            "ix_processed_files_prunable",
            "excluded_seen_at",
            postgresql_include=["excluded_reason", "num_chars", "id"],
            postgresql_where=sa.text("content IS NOT NULL AND excluded_reason IS NOT NULL"),
        ),
    )


class NearDupBand(Base):
    """One MinHash band of a file that newcomers are compared with: kept, or consumed by a run before it left.

    A hash is of one band only (`make_bands` mixes its number in), which need not stand beside it.

    No foreign key: files are never deleted, and checking fourteen rows for each would double the cost of storing it.
    """

    __tablename__ = "near_dup_bands"
    # Neighbourhood.look: the newest files that share a band
    hash: Mapped[int] = mapped_column(primary_key=True)
    file_id: Mapped[int] = mapped_column(primary_key=True)


class RefusedFile(Base):
    """A file that was looked at and not stored, and why (I10). Files of no known language are only counted."""

    __tablename__ = "refused_files"
    repository_id: Mapped[int] = mapped_column(sa.ForeignKey("repositories.id"), primary_key=True)
    file_path: Mapped[str] = mapped_column(primary_key=True)
    blob_oid: Mapped[str]
    num_bytes: Mapped[int]
    reason: Mapped[str]
    detail: Mapped[str | None]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=now())
