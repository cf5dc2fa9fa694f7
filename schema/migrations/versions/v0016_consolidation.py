"""Runs of kind consolidation: an adapter that begins at the base again."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("ck_training_runs_kind"), "training_runs")
    op.create_check_constraint(
        op.f("ck_training_runs_kind"), "training_runs", "kind IN ('base', 'adapter', 'consolidation')"
    )
