"""The tables. Alembic's migrations must build exactly these (tests/schema/test_migrations.py proves it).

Every index carries a comment that names the query it is for. Times are the database's clock. Text that comes from a
repository is data: nothing here is ever formatted into SQL.
"""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Run states that still need work, and those that end a run. `promoted` is also the end of run 0 (the base of `tiny`).
OPEN_STATES = ("claimed", "training", "evaluating")
CLOSED_STATES = ("promoted", "held", "rejected", "failed")
SPLITS = ("train", "validation", "test")
# `base` and `train` consume an item as new data, once (I2); `replay` and `consolidation` may repeat it.
CONSUMING_ROLES = ("base", "train")
ROLES = (*CONSUMING_ROLES, "replay", "consolidation")

_now = sa.func.now


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Base(DeclarativeBase):
    """Every table of codelupe."""

    type_annotation_map = {  # noqa: RUF012
        dt.datetime: sa.TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        int: sa.BigInteger,
        str: sa.Text,
        float: sa.Double,
    }
    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


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
    not_before: Mapped[dt.datetime] = mapped_column(server_default=_now())
    lease_until: Mapped[dt.datetime | None]
    lease_token: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    reason: Mapped[str | None]  # why it was refused, failed or died
    created_at: Mapped[dt.datetime] = mapped_column(server_default=_now())
    visited_at: Mapped[dt.datetime | None]
    # What the crawler knows of it: GitHub's own id, which a rename does not change, where the repository has moved
    # since `source` was its address, and what its search result promised before anything was cloned.
    node_id: Mapped[str | None] = mapped_column(unique=True)
    moved_to: Mapped[str | None]
    pushed_at: Mapped[dt.datetime | None]
    size_kb: Mapped[int | None]
    api_licence: Mapped[str | None]  # SPDX id, as GitHub sees it
    repository_score: Mapped[float | None]
    score_detail: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    # What its last visit that went well looked at, for the rates of `ingest status`.
    visit_files: Mapped[int | None]
    visit_bytes: Mapped[int | None]
    visit_seconds: Mapped[float | None]
    __table_args__ = (
        sa.CheckConstraint(_one_of("kind", ("git", "folder")), name="kind"),
        sa.CheckConstraint(_one_of("origin", ("operator", "crawler")), name="origin"),
        sa.CheckConstraint(_one_of("state", ("queued", "working", "done", "refused", "dead")), name="state"),
        # queue_due: what the operator named and was visited long ago
        sa.Index("ix_repositories_due", "visited_at", postgresql_where=sa.text("origin = 'operator'")),
        # claim_repository: the best queued one whose time has come, or one whose lease ran out
        sa.Index(
            "ix_repositories_claim",
            sa.text("priority DESC"),
            "id",
            postgresql_where=sa.text("state IN ('queued', 'working')"),
        ),
    )


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
    created_at: Mapped[dt.datetime] = mapped_column(server_default=_now())
    __table_args__ = (
        # save_files: ingesting the same thing again adds nothing; fetch_known_files: by repository
        sa.UniqueConstraint("repository_id", "file_path", "blob_oid"),
        sa.CheckConstraint(_one_of("split", SPLITS), name="split"),
        # save_files: is this content stored already, and in which split?
        sa.Index("ix_processed_files_content_sha256", "content_sha256"),
        # Neighbourhood.look_again: what was placed since, and the last number
        sa.Index("ix_processed_files_placed_in", "placed_in"),
        # promote_duplicates: the copies of a file that leaves
        sa.Index("ix_processed_files_near_dup_of", "near_dup_of", postgresql_where=sa.text("near_dup_of IS NOT NULL")),
    )


class NearDupBand(Base):
    """One MinHash band of a file that newcomers are compared with: kept, or consumed by a run before it left.

    No foreign key: files are never deleted, and checking fourteen rows for each would double the cost of storing it.
    """

    __tablename__ = "near_dup_bands"
    # Neighbourhood.look: the newest files that share a band
    band: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True)
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
    created_at: Mapped[dt.datetime] = mapped_column(server_default=_now())


class Line(Base):
    """One lineage of adapters: a name, its base model and its tokenizer."""

    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    base_model: Mapped[str]
    base_revision: Mapped[str | None]
    tokenizer_digest: Mapped[str | None]
    current_version: Mapped[int | None]  # versions.number; changed by compare-and-swap alone
    paused: Mapped[bool] = mapped_column(server_default=sa.false())
    request: Mapped[str | None]  # train | cancel: what the operator asked for, taken by the next tick
    not_before: Mapped[dt.datetime] = mapped_column(server_default=_now())  # back-off after a failed run
    num_failures: Mapped[int] = mapped_column(server_default="0")  # in a row
    max_owner_rows: Mapped[int] = mapped_column(server_default="99")  # items of one owner that it consumes
    created_at: Mapped[dt.datetime] = mapped_column(server_default=_now())


class Lease(Base):
    """Who may work on a line or a device, until when by the database's clock. The fence only grows (I5)."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(primary_key=True)  # line:<name> | device:<machine>:<GPU UUID or cpu>
    holder: Mapped[str]
    fence: Mapped[int]
    until: Mapped[dt.datetime]


class QueueItem(Base):
    """An item as one line sees it: narrow, written in the item's own transaction, the source of every count."""

    __tablename__ = "training_queue"
    line_id: Mapped[int] = mapped_column(sa.ForeignKey("lines.id"), primary_key=True)
    item_kind: Mapped[str] = mapped_column(primary_key=True)  # file
    item_id: Mapped[int] = mapped_column(primary_key=True)
    score: Mapped[float]
    num_chars: Mapped[int]
    language: Mapped[str]
    owner: Mapped[str]
    unit: Mapped[str]
    split: Mapped[str]
    # score minus one point per AGE_POINT_S of birth: a constant that sorts as "score plus an age bonus" at any time,
    # so that nothing starves and the index needs no upkeep.
    rank: Mapped[float]
    run_id: Mapped[int | None] = mapped_column(sa.ForeignKey("training_runs.id"))
    tries: Mapped[int] = mapped_column(sa.SmallInteger, server_default="0")
    # Released by a held or rejected run: claimed only beside a threshold of further rows (I2).
    waiting: Mapped[bool] = mapped_column(server_default=sa.false())
    excluded_reason: Mapped[str | None]  # the item's, copied; or owner_cap, this line's own
    capped_owner: Mapped[str | None]  # whose cap it counts for; NULL: nobody's, the operator has named its source
    quarantined_reason: Mapped[str | None]  # why it is never claimed; or probe | suspect (schema/suspects.py)
    __table_args__ = (
        sa.CheckConstraint(_one_of("split", SPLITS), name="split"),
        # count_pending: a range of the eligible scores, so that rows below the quality threshold, pending for ever,
        # cost it nothing
        sa.Index(
            "ix_training_queue_ready",
            "line_id",
            "waiting",
            "score",
            postgresql_include=["num_chars"],
            postgresql_where=sa.text(
                "run_id IS NULL AND split = 'train' AND excluded_reason IS NULL AND quarantined_reason IS NULL"
            ),
        ),
        # claim_run: the best pending ones first, those that wait for company last
        sa.Index(
            "ix_training_queue_pending",
            "line_id",
            "waiting",
            sa.text("rank DESC"),
            postgresql_include=["score", "num_chars", "item_kind", "item_id"],
            postgresql_where=sa.text(
                "run_id IS NULL AND split = 'train' AND excluded_reason IS NULL AND quarantined_reason IS NULL"
            ),
        ),
        # fetch_held_out: a line's held-out items of one split
        sa.Index(
            "ix_training_queue_held_out",
            "line_id",
            "split",
            postgresql_where=sa.text("split <> 'train' AND excluded_reason IS NULL"),
        ),
        # count_suspects: in every tick; and what is to be given back
        sa.Index(
            "ix_training_queue_quarantined",
            "line_id",
            "quarantined_reason",
            postgresql_where=sa.text("quarantined_reason IS NOT NULL"),
        ),
        # cap_items: what counts for an owner; and what waits behind its cap, the best first. Of an owner with many
        # repositories the latter is all but a hundred.
        sa.Index(
            "ix_training_queue_capped",
            "line_id",
            "capped_owner",
            postgresql_where=sa.text("capped_owner IS NOT NULL AND (run_id IS NOT NULL OR excluded_reason IS NULL)"),
        ),
        sa.Index(
            "ix_training_queue_cap_reserve",
            "line_id",
            "capped_owner",
            sa.text("score DESC"),
            "item_id",
            postgresql_where=sa.text("excluded_reason = 'owner_cap'"),
        ),
        # release_run: the items of one run
        sa.Index("ix_training_queue_run_id", "run_id", postgresql_where=sa.text("run_id IS NOT NULL")),
        # exclude_files: an item in every line's queue
        sa.Index("ix_training_queue_item", "item_kind", "item_id"),
    )


class TrainingRun(Base):
    """One run of one line, from claim to verdict. Each state is committed before the next begins."""

    __tablename__ = "training_runs"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    uuid: Mapped[str] = mapped_column(unique=True)  # made by the client: a COMMIT of unknown outcome is looked up by it
    line_id: Mapped[int] = mapped_column(sa.ForeignKey("lines.id"))
    number: Mapped[int]  # 0 is the base of `tiny`
    kind: Mapped[str]  # base | adapter
    state: Mapped[str]
    fence: Mapped[int]
    config: Mapped[dict[str, Any]]
    base_revision: Mapped[str | None]
    parent_version: Mapped[int | None]
    version: Mapped[int | None]
    members_digest: Mapped[str]
    artifact_digest: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(server_default="0")
    reason: Mapped[str | None]
    # rows, tokens, seconds, tokens_per_s, steps, bits_per_byte…: what `codelupe runs show` prints
    figures: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    created_at: Mapped[dt.datetime] = mapped_column(server_default=_now())
    updated_at: Mapped[dt.datetime] = mapped_column(server_default=_now())
    finished_at: Mapped[dt.datetime | None]
    __table_args__ = (
        sa.UniqueConstraint("line_id", "number"),
        sa.CheckConstraint(_one_of("state", OPEN_STATES + CLOSED_STATES), name="state"),
        sa.CheckConstraint(_one_of("kind", ("base", "adapter")), name="kind"),
        # fetch_open_run; and the guarantee that a line has one open run at most
        sa.Index(
            "uq_training_runs_open",
            "line_id",
            unique=True,
            postgresql_where=sa.text(_one_of("state", OPEN_STATES)),
        ),
    )


class RunItem(Base):
    """The ledger: which run saw which item, as what. History is kept; released_at says it was given back."""

    __tablename__ = "training_run_items"
    run_id: Mapped[int] = mapped_column(sa.ForeignKey("training_runs.id"), primary_key=True)
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    line_id: Mapped[int] = mapped_column(sa.ForeignKey("lines.id"))
    item_kind: Mapped[str]
    item_id: Mapped[int]
    role: Mapped[str]
    content_sha256: Mapped[str]
    released_at: Mapped[dt.datetime | None]
    __table_args__ = (
        sa.CheckConstraint(_one_of("role", ROLES), name="role"),
        # I2: an item is new data of at most one run that was not released
        sa.Index(
            "uq_training_run_items_consumed",
            "line_id",
            "item_kind",
            "item_id",
            unique=True,
            postgresql_where=sa.text(f"{_one_of('role', CONSUMING_ROLES)} AND released_at IS NULL"),
        ),
    )


class Version(Base):
    """An immutable version on disk: models/<line>/versions/NNNN."""

    __tablename__ = "versions"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    line_id: Mapped[int] = mapped_column(sa.ForeignKey("lines.id"))
    number: Mapped[int]
    run_id: Mapped[int] = mapped_column(sa.ForeignKey("training_runs.id"), unique=True)
    parent: Mapped[int | None]
    verdict: Mapped[str]  # candidate until the gate has spoken, then promoted | held | rejected
    manifest_digest: Mapped[str]
    num_bytes: Mapped[int]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=_now())
    __table_args__ = (sa.UniqueConstraint("line_id", "number"),)


class Promotion(Base):
    """Who made which version current, when and why."""

    __tablename__ = "promotions"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    line_id: Mapped[int] = mapped_column(sa.ForeignKey("lines.id"))
    version: Mapped[int]
    previous: Mapped[int | None]
    actor: Mapped[str]
    reason: Mapped[str]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=_now())


class Evaluation(Base):
    """One figure: a model on one set, of one language or unit (both empty: the whole set)."""

    __tablename__ = "evaluations"
    run_id: Mapped[int] = mapped_column(sa.ForeignKey("training_runs.id"), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)  # base | incumbent | candidate
    eval_set: Mapped[str] = mapped_column(primary_key=True)  # test
    metric: Mapped[str] = mapped_column(primary_key=True)  # bits_per_byte
    language: Mapped[str] = mapped_column(primary_key=True, server_default="")
    unit: Mapped[str] = mapped_column(primary_key=True, server_default="")
    value: Mapped[float]
    num_bytes: Mapped[int]  # the weight of this figure
    created_at: Mapped[dt.datetime] = mapped_column(server_default=_now())


class Decision(Base):
    """What a tick decided and on which inputs. Equal ones in a row are one record with a count."""

    __tablename__ = "decisions"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    line_id: Mapped[int] = mapped_column(sa.ForeignKey("lines.id"))
    verdict: Mapped[str]
    reason: Mapped[str]
    inputs: Mapped[dict[str, Any]]
    repeated: Mapped[int] = mapped_column(server_default="1")
    created_at: Mapped[dt.datetime] = mapped_column(server_default=_now())
    last_at: Mapped[dt.datetime] = mapped_column(server_default=_now())
    # fetch_decisions and record_decision: the newest of a line
    __table_args__ = (sa.Index("ix_decisions_line_id_id", "line_id", sa.text("id DESC")),)


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
        sa.CheckConstraint(_one_of("kind", ("full", "pushed")), name="kind"),
        sa.CheckConstraint(_one_of("state", ("pending", "working", "done", "split", "kept")), name="state"),
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
    seen_at: Mapped[dt.datetime] = mapped_column(server_default=_now())


class OptOut(Base):
    """Whose code is never taken: owner/name or a glob over it, in lower case."""

    __tablename__ = "opt_outs"
    pattern: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[dt.datetime] = mapped_column(server_default=_now())


class Chore(Base):
    """Something that is to be done now and then by whichever worker comes first, and when it is due again."""

    __tablename__ = "chores"
    name: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[dt.datetime]
    figures: Mapped[dict[str, Any]] = mapped_column(server_default="{}")  # what it did the last time
