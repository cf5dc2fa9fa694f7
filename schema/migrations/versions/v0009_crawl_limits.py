"""What the crawler's processes share: closed windows, ages of owners, and the rules that a page was judged by."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TIME = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "crawl_limits",
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("remaining", sa.BigInteger),
        sa.Column("resets_at", _TIME),
        sa.Column("closed_until", _TIME),
        sa.Column("paced_until", _TIME),
        sa.Column("asking_until", _TIME),
        sa.PrimaryKeyConstraint("token_id", "resource", name=op.f("pk_crawl_limits")),
    )
    op.create_table(
        "crawl_owners",
        sa.Column("id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("login", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("checked_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crawl_owners")),
    )
    # Pages of an earlier version are read in full once: by which rules they were judged is not known.
    op.add_column("crawl_pages", sa.Column("judged_by", sa.Text, server_default="", nullable=False))
