"""Remember when a deployment's image and source were removed"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    for name in ("image_removed_at", "source_removed_at"):
        op.add_column("deployment", sa.Column(name, sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for name in ("image_removed_at", "source_removed_at"):
        op.drop_column("deployment", name)
