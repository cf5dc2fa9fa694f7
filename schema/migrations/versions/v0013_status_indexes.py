"""What `ingest status` and `ingest prune --dry-run` count is read from indexes instead of from whole tables."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_processed_files_counts", "processed_files", ["language", "split", "excluded_reason", "licence"])
    op.create_index(
        "ix_processed_files_prunable",
        "processed_files",
        ["excluded_seen_at"],
        postgresql_include=["excluded_reason", "num_chars", "id"],
        postgresql_where=sa.text("content IS NOT NULL AND excluded_reason IS NOT NULL"),
    )
