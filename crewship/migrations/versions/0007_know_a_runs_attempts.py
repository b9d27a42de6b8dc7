"""Know which attempt of a run was launched, and when that one began"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("run", sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("run", sa.Column("attempt_started_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE run SET attempt_started_at = started_at")


def downgrade() -> None:
    op.drop_column("run", "attempt_started_at")
    op.drop_column("run", "attempt")
