"""The words of repositories and files, for the search; workers fill them in."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "search_entries",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("item_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("repository_id", sa.BigInteger, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("words", TSVECTOR, nullable=False),
        sa.Column("digest", sa.Text),
        sa.CheckConstraint("kind IN ('repository', 'file')", name=op.f("ck_search_entries_kind")),
        sa.PrimaryKeyConstraint("kind", "item_id", name=op.f("pk_search_entries")),
        postgresql_with={"toast_tuple_target": 128},
    )
    op.create_index("ix_search_entries_words", "search_entries", ["words"], postgresql_using="gin")
    op.create_index("ix_search_entries_repository_id", "search_entries", ["repository_id"])
