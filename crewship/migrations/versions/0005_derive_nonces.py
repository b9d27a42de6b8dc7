"""A container's nonce is derived from its id"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.drop_column("run", "nonce")


def downgrade() -> None:
    op.add_column("run", sa.Column("nonce", sa.String(), nullable=True))
