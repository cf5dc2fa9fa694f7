"""The lines of adapters: what each has still to train on, its versions, and what its ticks decided."""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import SPLITS, Base, now, one_of


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
    not_before: Mapped[dt.datetime] = mapped_column(server_default=now())  # back-off after a failed run
    num_failures: Mapped[int] = mapped_column(server_default="0")  # in a row
    max_owner_rows: Mapped[int] = mapped_column(server_default="99")  # items of one owner that it consumes
    created_at: Mapped[dt.datetime] = mapped_column(server_default=now())


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
        sa.CheckConstraint(one_of("split", SPLITS), name="split"),
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
    created_at: Mapped[dt.datetime] = mapped_column(server_default=now())
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
    created_at: Mapped[dt.datetime] = mapped_column(server_default=now())


class SettingChange(Base):
    """A setting of a line's daemon that was changed while it ran: who, when, why. The newest of a name holds."""

    __tablename__ = "setting_changes"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    line_id: Mapped[int] = mapped_column(sa.ForeignKey("lines.id"))
    name: Mapped[str]
    value: Mapped[str | None]  # JSON; NULL: as it is configured again
    previous: Mapped[str]  # JSON: what held until then
    actor: Mapped[str]
    reason: Mapped[str | None]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=now())
    # fetch_changed, in every tick: the newest of each name
    __table_args__ = (sa.Index("ix_setting_changes_line_id_name_id", "line_id", "name", sa.text("id DESC")),)


class Decision(Base):
    """What a tick decided and on which inputs. Equal ones in a row are one record with a count."""

    __tablename__ = "decisions"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    line_id: Mapped[int] = mapped_column(sa.ForeignKey("lines.id"))
    verdict: Mapped[str]
    reason: Mapped[str]
    inputs: Mapped[dict[str, Any]]
    repeated: Mapped[int] = mapped_column(server_default="1")
    tick: Mapped[str | None]  # the last one that decided so, as in its log lines; NULL: an operator
    created_at: Mapped[dt.datetime] = mapped_column(server_default=now())
    last_at: Mapped[dt.datetime] = mapped_column(server_default=now())
    # fetch_decisions and record_decision: the newest of a line
    __table_args__ = (sa.Index("ix_decisions_line_id_id", "line_id", sa.text("id DESC")),)
