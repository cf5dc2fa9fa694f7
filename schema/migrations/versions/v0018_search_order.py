"""A search for a frequent word goes through the entries in their order instead of sorting every match."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_search_entries_score", "search_entries", ["score", "kind", "item_id"])
