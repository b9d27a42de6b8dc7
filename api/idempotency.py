"""``Idempotency-Key``: the same call twice within 24 hours has one effect, however close together the two come."""

import hashlib
from datetime import timedelta
from typing import Annotated, Any

import orjson
from fastapi import Header
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, delete

from crewship.clock import now
from crewship.errors import Conflict
from crewship.models import Idempotency

_KEPT = timedelta(hours=24)

IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]


def digest(content: Any) -> str:
    """SHA-256 of ``content`` as JSON; the order of keys and white space make no difference."""
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def claim(session: Session, scope: str, key: str | None, body_sha256: str, resource_id: str) -> str:
    """Take ``key`` for ``resource_id``, or find what it was taken for; the id that counts.

    The primary key decides between two calls at once: the second waits for the first one's transaction. Call this first in
    a transaction, before the resource is made.

    Raises:
        Conflict: the key was used with another body.
    """
    if key is None:
        return resource_id
    session.exec(
        delete(Idempotency).where(
            col(Idempotency.scope) == scope, col(Idempotency.key) == key, col(Idempotency.created_at) < now() - _KEPT
        )
    )
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = Idempotency(scope=scope, key=key, body_sha256=body_sha256, resource_id=resource_id)
    session.execute(insert(Idempotency).values(**row.model_dump()).on_conflict_do_nothing())
    held = session.get_one(Idempotency, (scope, key))
    if held.body_sha256 != body_sha256:
        raise Conflict(
            "This Idempotency-Key was used for another request",
            code="idempotency_conflict",
            hint="use a new key for each new request",
        )
    return held.resource_id


def release(session: Session, scope: str, key: str | None) -> None:
    """Give ``key`` back: what it was taken for has not come to be."""
    if key is not None:
        session.exec(delete(Idempotency).where(col(Idempotency.scope) == scope, col(Idempotency.key) == key))
