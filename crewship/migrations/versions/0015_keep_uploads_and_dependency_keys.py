"""Keep uploads that come in parts, and know which deployments have the same dependencies"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "upload",
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("source_sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("project", "source_sha256"),
    )
    op.add_column("deployment", sa.Column("dependency_key", sa.String(), nullable=True))
    op.create_index(op.f("ix_deployment_dependency_key"), "deployment", ["dependency_key"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_deployment_dependency_key"), "deployment")
    op.drop_column("deployment", "dependency_key")
    op.drop_table("upload")
