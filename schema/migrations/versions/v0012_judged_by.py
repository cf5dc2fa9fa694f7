"""By which rules a source's files were judged: other ones make it due again."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Nobody knows by which rules the sources of an earlier version were judged: they are read again, a few an hour.
    op.add_column("repositories", sa.Column("judged_by", sa.Text))
    # queue_outdated: the one whose visit is longest ago
    op.create_index("ix_repositories_visited_at", "repositories", ["visited_at"])
