"""Remember whether a run's artifacts were collected"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("run", sa.Column("collected", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("run", "collected")
