"""Jobs and calls of the API are rows; what was a line's one wish is a job, or the wish to cancel one run."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TIME = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    _create_jobs()
    op.create_table(
        "api_calls",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("called_at", _TIME, server_default=sa.func.now(), nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("status", sa.SmallInteger, nullable=False),
        sa.Column("detail", sa.Text),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_calls")),
    )
    op.add_column("training_runs", sa.Column("cancel_requested_at", _TIME))
    op.execute(
        """
        INSERT INTO jobs (uuid, line_id, forced, asked_by)
        SELECT gen_random_uuid()::text, id, true, 'an earlier version' FROM lines WHERE request = 'train'
        """
    )
    op.execute(
        """
        UPDATE training_runs SET cancel_requested_at = now()
        WHERE state IN ('claimed', 'training', 'evaluating')
            AND line_id IN (SELECT id FROM lines WHERE request = 'cancel')
        """
    )
    op.drop_column("lines", "request")


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("uuid", sa.Text, nullable=False),
        sa.Column("line_id", sa.BigInteger, nullable=False),
        sa.Column("forced", sa.Boolean, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("run_id", sa.BigInteger),
        sa.Column("cancelled_at", _TIME),
        sa.Column("created_at", _TIME, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("uuid", name=op.f("uq_jobs_uuid")),
        sa.UniqueConstraint("asked_by", "idempotency_key", name=op.f("uq_jobs_asked_by_idempotency_key")),
        sa.ForeignKeyConstraint(["line_id"], ["lines.id"], name=op.f("fk_jobs_line_id")),
        sa.ForeignKeyConstraint(["run_id"], ["training_runs.id"], name=op.f("fk_jobs_run_id")),
    )
    op.create_index("ix_jobs_line_id_id", "jobs", ["line_id", sa.text("id DESC")])
    op.create_index(
        "ix_jobs_queued", "jobs", ["line_id"], postgresql_where=sa.text("run_id IS NULL AND cancelled_at IS NULL")
    )
