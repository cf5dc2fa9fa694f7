"""The crawler: what GitHub says of a repository, windows and passes, pages and their ETags; and opt-outs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
TIMESTAMP = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.add_column("repositories", sa.Column("node_id", sa.Text))
    op.add_column("repositories", sa.Column("moved_to", sa.Text))
    op.add_column("repositories", sa.Column("pushed_at", TIMESTAMP))
    op.add_column("repositories", sa.Column("size_kb", sa.BigInteger))
    op.add_column("repositories", sa.Column("api_licence", sa.Text))
    op.add_column("repositories", sa.Column("repository_score", sa.Double()))
    op.add_column("repositories", sa.Column("score_detail", JSONB, server_default="{}", nullable=False))
    op.create_unique_constraint(op.f("uq_repositories_node_id"), "repositories", ["node_id"])
    op.create_table(
        "crawl_passes",
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("kind", sa.Text),
        sa.Column("started_at", TIMESTAMP),
        sa.Column("seen_until", TIMESTAMP),
        sa.Column("full_at", TIMESTAMP),
        sa.PrimaryKeyConstraint("plan", "language", name=op.f("pk_crawl_passes")),
    )
    op.create_table(
        "crawl_windows",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("root", sa.Text, nullable=False),
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("box", JSONB, nullable=False),
        sa.Column("max_pages", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.Text, server_default="pending", nullable=False),
        sa.Column("cursor", sa.Text),
        sa.Column("total", sa.BigInteger),
        sa.Column("num_found", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("last_seen", TIMESTAMP),
        sa.Column("reason", sa.Text),
        sa.Column("attempts", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("not_before", TIMESTAMP),
        sa.Column("lease_until", TIMESTAMP),
        sa.Column("lease_token", sa.Text),
        sa.CheckConstraint("kind IN ('full', 'pushed')", name=op.f("ck_crawl_windows_kind")),
        sa.CheckConstraint(
            "state IN ('pending', 'working', 'done', 'split', 'kept')", name=op.f("ck_crawl_windows_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_crawl_windows")),
        sa.UniqueConstraint("plan", "query", name=op.f("uq_crawl_windows_plan_query")),
    )
    op.create_index(
        "ix_crawl_windows_claim",
        "crawl_windows",
        ["plan", "language", "id"],
        postgresql_where=sa.text("state IN ('pending', 'working')"),
    )
    op.create_table(
        "crawl_pages",
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("token_id", sa.Text, nullable=False),
        sa.Column("etag", sa.Text, nullable=False),
        sa.Column("next_url", sa.Text),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("num_items", sa.BigInteger, nullable=False),
        sa.Column("seen_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("url", "token_id", name=op.f("pk_crawl_pages")),
    )
    op.create_table(
        "opt_outs",
        sa.Column("pattern", sa.Text, nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("pattern", name=op.f("pk_opt_outs")),
    )
