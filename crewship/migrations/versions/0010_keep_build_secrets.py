"""Keep secrets of builds apart from the env vars of runs"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "buildsecret",
        sa.Column("project", sa.String(length=63), sa.ForeignKey("project.name"), primary_key=True),
        sa.Column("name", sa.String(length=128), primary_key=True),
        sa.Column("sealed", sa.String(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("buildsecret")
