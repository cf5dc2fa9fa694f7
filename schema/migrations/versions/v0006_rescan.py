"""Sources that the operator named are visited again at an interval: an index to find those that are due."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_repositories_due", "repositories", ["visited_at"], postgresql_where=sa.text("origin = 'operator'")
    )
