"""The first tables: sources, files, lines, the queue, the ledger, versions, decisions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NOW = sa.text("now()")
TIMESTAMP = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("until", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "lines",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("base_model", sa.Text, nullable=False),
        sa.Column("base_revision", sa.Text),
        sa.Column("tokenizer_digest", sa.Text),
        sa.Column("current_version", sa.BigInteger),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("request", sa.Text),
        sa.Column("not_before", TIMESTAMP, server_default=NOW, nullable=False),
        sa.Column("num_failures", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lines")),
        sa.UniqueConstraint("name", name=op.f("uq_lines_name")),
    )
    op.create_table(
        "repositories",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("host", sa.Text),
        sa.Column("owner", sa.Text),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("stars", sa.BigInteger),
        sa.Column("forks", sa.BigInteger),
        sa.Column("language", sa.Text),
        sa.Column("topics", sa.ARRAY(sa.Text), server_default="{}", nullable=False),
        sa.Column("licence", sa.Text),
        sa.Column("licence_evidence", sa.Text),
        sa.Column("quality_score", sa.Double()),
        sa.Column("head_commit", sa.Text),
        sa.Column("local_path", sa.Text),
        sa.Column("code_lines", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("file_count", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("unit_level", sa.Text),
        sa.Column("refusals", JSONB, server_default="{}", nullable=False),
        sa.Column("state", sa.Text, server_default="queued", nullable=False),
        sa.Column("priority", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("not_before", TIMESTAMP, server_default=NOW, nullable=False),
        sa.Column("lease_until", TIMESTAMP),
        sa.Column("lease_token", sa.Text),
        sa.Column("attempts", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.Column("visited_at", TIMESTAMP),
        sa.CheckConstraint("kind IN ('git', 'folder')", name=op.f("ck_repositories_kind")),
        sa.CheckConstraint("origin IN ('operator', 'crawler')", name=op.f("ck_repositories_origin")),
        sa.CheckConstraint(
            "state IN ('queued', 'working', 'done', 'refused', 'dead')", name=op.f("ck_repositories_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repositories")),
        sa.UniqueConstraint("source", name=op.f("uq_repositories_source")),
    )
    op.create_index(
        "ix_repositories_claim",
        "repositories",
        [sa.text("priority DESC"), "id"],
        postgresql_where=sa.text("state IN ('queued', 'working')"),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("line_id", sa.BigInteger, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("inputs", JSONB, nullable=False),
        sa.Column("repeated", sa.BigInteger, server_default="1", nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.Column("last_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(["line_id"], ["lines.id"], name=op.f("fk_decisions_line_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
    )
    op.create_index("ix_decisions_line_id_id", "decisions", ["line_id", sa.text("id DESC")])
    op.create_table(
        "processed_files",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("repository_id", sa.BigInteger, nullable=False),
        sa.Column("file_path", sa.Text, nullable=False),
        sa.Column("commit", sa.Text),
        sa.Column("blob_oid", sa.Text, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("content", sa.Text),
        sa.Column("content_sha256", sa.Text, nullable=False),
        sa.Column("num_chars", sa.BigInteger, nullable=False),
        sa.Column("num_lines", sa.BigInteger, nullable=False),
        sa.Column("quality_score", sa.Double(), nullable=False),
        sa.Column("score_detail", JSONB, nullable=False),
        sa.Column("scorer_version", sa.BigInteger, nullable=False),
        sa.Column("licence", sa.Text),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("split", sa.Text, nullable=False),
        sa.Column("near_dup_of", sa.BigInteger),
        sa.Column("excluded_reason", sa.Text),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.CheckConstraint("split IN ('train', 'validation', 'test')", name=op.f("ck_processed_files_split")),
        sa.ForeignKeyConstraint(["near_dup_of"], ["processed_files.id"], name=op.f("fk_processed_files_near_dup_of")),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_processed_files_repository_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_processed_files")),
        sa.UniqueConstraint(
            "repository_id", "file_path", "blob_oid", name=op.f("uq_processed_files_repository_id_file_path_blob_oid")
        ),
    )
    op.create_index("ix_processed_files_content_sha256", "processed_files", ["content_sha256"])
    op.create_index(
        "ix_processed_files_near_dup_of",
        "processed_files",
        ["near_dup_of"],
        postgresql_where=sa.text("near_dup_of IS NOT NULL"),
    )
    op.create_table(
        "promotions",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("line_id", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("previous", sa.BigInteger),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(["line_id"], ["lines.id"], name=op.f("fk_promotions_line_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )
    op.create_table(
        "refused_files",
        sa.Column("repository_id", sa.BigInteger, nullable=False),
        sa.Column("file_path", sa.Text, nullable=False),
        sa.Column("blob_oid", sa.Text, nullable=False),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_refused_files_repository_id")),
        sa.PrimaryKeyConstraint("repository_id", "file_path", name=op.f("pk_refused_files")),
    )
    op.create_table(
        "training_runs",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("uuid", sa.Text, nullable=False),
        sa.Column("line_id", sa.BigInteger, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("config", JSONB, nullable=False),
        sa.Column("base_revision", sa.Text),
        sa.Column("parent_version", sa.BigInteger),
        sa.Column("version", sa.BigInteger),
        sa.Column("members_digest", sa.Text, nullable=False),
        sa.Column("artifact_digest", sa.Text),
        sa.Column("attempt", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("figures", JSONB, server_default="{}", nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.Column("finished_at", TIMESTAMP),
        sa.CheckConstraint("kind IN ('base', 'adapter')", name=op.f("ck_training_runs_kind")),
        sa.CheckConstraint(
            "state IN ('claimed', 'training', 'evaluating', 'promoted', 'held', 'rejected', 'failed')",
            name=op.f("ck_training_runs_state"),
        ),
        sa.ForeignKeyConstraint(["line_id"], ["lines.id"], name=op.f("fk_training_runs_line_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_runs")),
        sa.UniqueConstraint("line_id", "number", name=op.f("uq_training_runs_line_id_number")),
        sa.UniqueConstraint("uuid", name=op.f("uq_training_runs_uuid")),
    )
    op.create_index(
        "uq_training_runs_open",
        "training_runs",
        ["line_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('claimed', 'training', 'evaluating')"),
    )
    op.create_table(
        "evaluations",
        sa.Column("run_id", sa.BigInteger, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("eval_set", sa.Text, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("language", sa.Text, server_default="", nullable=False),
        sa.Column("unit", sa.Text, server_default="", nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["training_runs.id"], name=op.f("fk_evaluations_run_id")),
        sa.PrimaryKeyConstraint(
            "run_id", "model", "eval_set", "metric", "language", "unit", name=op.f("pk_evaluations")
        ),
    )
    op.create_table(
        "training_queue",
        sa.Column("line_id", sa.BigInteger, nullable=False),
        sa.Column("item_kind", sa.Text, nullable=False),
        sa.Column("item_id", sa.BigInteger, nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("num_chars", sa.BigInteger, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("split", sa.Text, nullable=False),
        sa.Column("rank", sa.Double(), nullable=False),
        sa.Column("run_id", sa.BigInteger),
        sa.Column("tries", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("waiting", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("excluded_reason", sa.Text),
        sa.Column("quarantined_reason", sa.Text),
        sa.CheckConstraint("split IN ('train', 'validation', 'test')", name=op.f("ck_training_queue_split")),
        sa.ForeignKeyConstraint(["line_id"], ["lines.id"], name=op.f("fk_training_queue_line_id")),
        sa.ForeignKeyConstraint(["run_id"], ["training_runs.id"], name=op.f("fk_training_queue_run_id")),
        sa.PrimaryKeyConstraint("line_id", "item_kind", "item_id", name=op.f("pk_training_queue")),
    )
    op.create_index(
        "ix_training_queue_held_out",
        "training_queue",
        ["line_id", "split"],
        postgresql_where=sa.text("split <> 'train' AND excluded_reason IS NULL"),
    )
    op.create_index("ix_training_queue_item", "training_queue", ["item_kind", "item_id"])
    op.create_index(
        "ix_training_queue_pending",
        "training_queue",
        ["line_id", "waiting", sa.text("rank DESC")],
        postgresql_include=["score", "num_chars", "item_kind", "item_id"],
        postgresql_where=sa.text(
            "run_id IS NULL AND split = 'train' AND excluded_reason IS NULL AND quarantined_reason IS NULL"
        ),
    )
    op.create_index(
        "ix_training_queue_ready",
        "training_queue",
        ["line_id", "waiting", "score"],
        postgresql_include=["num_chars"],
        postgresql_where=sa.text(
            "run_id IS NULL AND split = 'train' AND excluded_reason IS NULL AND quarantined_reason IS NULL"
        ),
    )
    op.create_index(
        "ix_training_queue_run_id", "training_queue", ["run_id"], postgresql_where=sa.text("run_id IS NOT NULL")
    )
    op.create_table(
        "training_run_items",
        sa.Column("run_id", sa.BigInteger, nullable=False),
        sa.Column("ordinal", sa.BigInteger, nullable=False),
        sa.Column("line_id", sa.BigInteger, nullable=False),
        sa.Column("item_kind", sa.Text, nullable=False),
        sa.Column("item_id", sa.BigInteger, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content_sha256", sa.Text, nullable=False),
        sa.Column("released_at", TIMESTAMP),
        sa.CheckConstraint(
            "role IN ('base', 'train', 'replay', 'consolidation')", name=op.f("ck_training_run_items_role")
        ),
        sa.ForeignKeyConstraint(["line_id"], ["lines.id"], name=op.f("fk_training_run_items_line_id")),
        sa.ForeignKeyConstraint(["run_id"], ["training_runs.id"], name=op.f("fk_training_run_items_run_id")),
        sa.PrimaryKeyConstraint("run_id", "ordinal", name=op.f("pk_training_run_items")),
    )
    op.create_index(
        "uq_training_run_items_consumed",
        "training_run_items",
        ["line_id", "item_kind", "item_id"],
        unique=True,
        postgresql_where=sa.text("role IN ('base', 'train') AND released_at IS NULL"),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("line_id", sa.BigInteger, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.BigInteger, nullable=False),
        sa.Column("parent", sa.BigInteger),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("manifest_digest", sa.Text, nullable=False),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(["line_id"], ["lines.id"], name=op.f("fk_versions_line_id")),
        sa.ForeignKeyConstraint(["run_id"], ["training_runs.id"], name=op.f("fk_versions_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_versions")),
        sa.UniqueConstraint("line_id", "number", name=op.f("uq_versions_line_id_number")),
        sa.UniqueConstraint("run_id", name=op.f("uq_versions_run_id")),
    )
