"""The owner cap of a line, what retention has seen, figures of visits, and chores that come round."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("repositories", sa.Column("visit_files", sa.BigInteger))
    op.add_column("repositories", sa.Column("visit_bytes", sa.BigInteger))
    op.add_column("repositories", sa.Column("visit_seconds", sa.Double))
    op.add_column("processed_files", sa.Column("excluded_seen_at", sa.TIMESTAMP(timezone=True)))
    op.add_column("lines", sa.Column("max_owner_rows", sa.BigInteger, server_default="99", nullable=False))
    # No setting is 0: a line that is there brings what it has pending under its cap when it is opened next.
    op.execute("UPDATE lines SET max_owner_rows = 0")
    op.add_column("training_queue", sa.Column("capped_owner", sa.Text))
    op.execute(
        """
        UPDATE training_queue q SET capped_owner = f.owner
        FROM processed_files f JOIN repositories r ON r.id = f.repository_id
        WHERE r.origin = 'crawler' AND q.item_kind = 'file' AND q.item_id = f.id
        """
    )
    op.create_index(
        "ix_training_queue_capped_owner",
        "training_queue",
        ["line_id", "capped_owner", sa.text("score DESC")],
        postgresql_where=sa.text("capped_owner IS NOT NULL"),
    )
    op.create_table(
        "chores",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("due_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("figures", JSONB, server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chores")),
    )
