"""What is asked of the service from outside: jobs, and the record of every call that changes something."""

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import Base, now


class Job(Base):
    """A request for a run. Its state is that of the run that came of it; before that it is queued, or cancelled."""

    __tablename__ = "jobs"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    uuid: Mapped[str] = mapped_column(unique=True)  # how it is known outside
    line_id: Mapped[int] = mapped_column(sa.ForeignKey("lines.id"))
    forced: Mapped[bool]  # however few rows there are; else when the policy says so
    asked_by: Mapped[str]
    reason: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    run_id: Mapped[int | None] = mapped_column(sa.ForeignKey("training_runs.id"))
    cancelled_at: Mapped[dt.datetime | None]  # before a run came of it
    created_at: Mapped[dt.datetime] = mapped_column(server_default=now())
    __table_args__ = (
        # add_job: the same request sent twice is one job
        sa.UniqueConstraint("asked_by", "idempotency_key"),
        # fetch_jobs: the newest of a line
        sa.Index("ix_jobs_line_id_id", "line_id", sa.text("id DESC")),
        # is_run_requested, answer_jobs: in every tick
        sa.Index("ix_jobs_queued", "line_id", postgresql_where=sa.text("run_id IS NULL AND cancelled_at IS NULL")),
    )


class ApiCall(Base):
    """A call of the API that was to change something: who, what, when, and how it ended. Holds no token."""

    __tablename__ = "api_calls"
    id: Mapped[int] = mapped_column(sa.Identity(), primary_key=True)
    called_at: Mapped[dt.datetime] = mapped_column(server_default=now())
    token: Mapped[str]  # its name
    operation: Mapped[str]
    path: Mapped[str]
    address: Mapped[str]  # the peer's
    status: Mapped[int] = mapped_column(sa.SmallInteger)
    detail: Mapped[str | None]  # why it was refused
