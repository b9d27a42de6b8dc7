"""Remember whether a host's network lets runs start"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("host", sa.Column("network", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("host", "network")
