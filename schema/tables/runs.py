"""The runs, the ledger of what each of them saw, and what they measured."""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import CLOSED_STATES, CONSUMING_ROLES, OPEN_STATES, ROLES, RUN_KINDS, Base, now, one_of


class TrainingRun(Base):
    """One run of one line, from claim to verdict. Each state is committed before the next begins."""

    __tablename__ = "training_runs"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    uuid: Mapped[str] = mapped_column(unique=True)  # made by the client: a COMMIT of unknown outcome is looked up by it
    line_id: Mapped[int] = mapped_column(sa.ForeignKey("lines.id"))
    number: Mapped[int]  # 0 is the base of `tiny`
    kind: Mapped[str]  # base | adapter | consolidation, an adapter that begins at the base again
    state: Mapped[str]
    fence: Mapped[int]
    config: Mapped[dict[str, Any]]
    base_revision: Mapped[str | None]
    parent_version: Mapped[int | None]
    version: Mapped[int | None]
    members_digest: Mapped[str]
    artifact_digest: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(server_default="0")
    cancel_requested_at: Mapped[dt.datetime | None]  # taken by the next tick, or by its child's next look
    reason: Mapped[str | None]
    # rows, tokens, seconds, tokens_per_s, steps, bits_per_byte…: what `codelupe runs show` prints
    figures: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    # {state, attempt, at, tick} of each move, oldest first: the tick of the first one decided on the run
    history: Mapped[list[dict[str, Any]]] = mapped_column(server_default="[]")
    created_at: Mapped[dt.datetime] = mapped_column(server_default=now())
    updated_at: Mapped[dt.datetime] = mapped_column(server_default=now())
    finished_at: Mapped[dt.datetime | None]
    __table_args__ = (
        sa.UniqueConstraint("line_id", "number"),
        sa.CheckConstraint(one_of("state", OPEN_STATES + CLOSED_STATES), name="state"),
        sa.CheckConstraint(one_of("kind", RUN_KINDS), name="kind"),
        # fetch_open_run; and the guarantee that a line has one open run at most
        sa.Index(
            "uq_training_runs_open",
            "line_id",
            unique=True,
            postgresql_where=sa.text(one_of("state", OPEN_STATES)),
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
        sa.CheckConstraint(one_of("role", ROLES), name="role"),
        # I2: an item is new data of at most one run that was not released
        sa.Index(
            "uq_training_run_items_consumed",
            "line_id",
            "item_kind",
            "item_id",
            unique=True,
            postgresql_where=sa.text(f"{one_of('role', CONSUMING_ROLES)} AND released_at IS NULL"),
        ),
    )


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
    created_at: Mapped[dt.datetime] = mapped_column(server_default=now())
