"""Run by Alembic, always on the connection (and inside the transaction) that ``crewship.db.migrate`` opened."""

from typing import Any, Literal, cast

from alembic import context
from sqlalchemy import Connection, String
from sqlmodel import AutoString, SQLModel
from sqlmodel.sql.sqltypes import UTCDateTime

import crewship.models  # noqa: F401  (fills the metadata)


def plain_type(kind: str, item: Any, _context: object) -> str | Literal[False]:
    """Write migrations in SQLAlchemy's own types, so that they do not change with SQLModel."""
    if kind == "type" and isinstance(item, AutoString):
        length = cast(String, item.impl).length
        return f"sa.String(length={length})" if length else "sa.String()"
    if kind == "type" and isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False


context.configure(
    connection=cast(Connection, context.config.attributes["connection"]),
    target_metadata=SQLModel.metadata,
    compare_type=True,
    render_item=plain_type,
    render_as_batch=True,  # SQLite changes a column by making the table anew
    transactional_ddl=True,
)
context.run_migrations()
