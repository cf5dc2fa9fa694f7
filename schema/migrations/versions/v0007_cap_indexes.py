"""The owner cap reads what counts for an owner, and the best of what waits, each from an index of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_training_queue_capped_owner", "training_queue")
    op.create_index(
        "ix_training_queue_capped",
        "training_queue",
        ["line_id", "capped_owner"],
        postgresql_where=sa.text("capped_owner IS NOT NULL AND (run_id IS NOT NULL OR excluded_reason IS NULL)"),
    )
    op.create_index(
        "ix_training_queue_cap_reserve",
        "training_queue",
        ["line_id", "capped_owner", sa.text("score DESC"), "item_id"],
        postgresql_where=sa.text("excluded_reason = 'owner_cap'"),
    )
