"""Which tick decided, and the states of a run, each with the tick that moved it there."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("decisions", sa.Column("tick", sa.Text))
    op.add_column("training_runs", sa.Column("history", JSONB, nullable=False, server_default="[]"))
