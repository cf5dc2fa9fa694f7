"""Near-duplicates: the MinHash bands of every file, and a table to find by them what newcomers are compared with."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("processed_files", sa.Column("near_dup_similarity", sa.Double()))
    op.add_column("processed_files", sa.Column("bands", sa.ARRAY(sa.BigInteger)))
    op.add_column("processed_files", sa.Column("bands_version", sa.BigInteger))
    op.add_column("processed_files", sa.Column("placed_in", sa.BigInteger))
    op.create_index("ix_processed_files_placed_in", "processed_files", ["placed_in"])
    op.create_table(
        "near_dup_bands",
        sa.Column("band", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("hash", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("file_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("band", "hash", "file_id", name=op.f("pk_near_dup_bands")),
    )
