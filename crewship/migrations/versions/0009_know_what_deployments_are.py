"""Know what deployments were built from, and how each became current"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_DEPLOYMENT = {
    "base_image": sa.String,
    "base_python": sa.String,
    "python": sa.String,
    "recipe": sa.String,
    "env_version": sa.Integer,
}


def upgrade() -> None:
    for name, kind in _DEPLOYMENT.items():
        op.add_column("deployment", sa.Column(name, kind(), nullable=True))
    with op.batch_alter_table("activation") as batch:
        batch.add_column(sa.Column("kind", sa.String(), nullable=False, server_default="deploy"))
        batch.add_column(sa.Column("key", sa.String(), nullable=True))
        batch.add_column(sa.Column("env_version", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("previous_env_version", sa.Integer(), nullable=True))
        batch.create_unique_constraint("uq_activation_key", ["key"])
    # Until now a deployment became current by its deploy once, and by a rollback each other time.
    op.execute(
        "UPDATE activation SET kind = 'rollback' WHERE EXISTS (SELECT 1 FROM activation AS earlier"
        " WHERE earlier.deployment_id = activation.deployment_id AND earlier.id < activation.id)"
    )


def downgrade() -> None:
    with op.batch_alter_table("activation") as batch:
        batch.drop_constraint("uq_activation_key", type_="unique")
        for name in ("previous_env_version", "env_version", "key", "kind"):
            batch.drop_column(name)
    for name in reversed(_DEPLOYMENT):
        op.drop_column("deployment", name)
