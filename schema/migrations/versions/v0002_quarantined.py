"""An index of the quarantined rows: each tick asks whether one is under suspicion."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_training_queue_quarantined",
        "training_queue",
        ["line_id", "quarantined_reason"],
        postgresql_where=sa.text("quarantined_reason IS NOT NULL"),
    )
