"""Give runs a priority, a queue timeout and a place under their project's limit"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("run", sa.Column("priority", sa.Integer(), nullable=False, server_default="3"))
    op.add_column("run", sa.Column("queue_timeout_seconds", sa.Integer(), nullable=True))
    op.add_column("run", sa.Column("concurrency", sa.Integer(), nullable=True))
    op.add_column("run", sa.Column("admitted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_run_project_status", "run", ["project", "status"])


def downgrade() -> None:
    op.drop_index("ix_run_project_status", "run")
    for column in ("admitted_at", "concurrency", "queue_timeout_seconds", "priority"):
        op.drop_column("run", column)
