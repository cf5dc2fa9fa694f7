"""Release tags of repositories, and when each was first seen."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("repositories", sa.Column("tags_read_at", sa.TIMESTAMP(timezone=True)))
    op.create_table(
        "release_tags",
        sa.Column("repository_id", sa.BigInteger, sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("seen_at", sa.TIMESTAMP(timezone=True)),
    )
