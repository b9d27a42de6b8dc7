"""API keys: make, list, show one's own, revoke. A secret is in the answer that makes it, and nowhere else."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import AfterValidator, Field, StringConstraints
from sqlmodel import Session, col, select, tuple_

from api.auth import AdminCaller, Caller, ReadCaller
from api.lookups import check_project_name
from api.pages import CursorQuery, LimitQuery, cut, decode_moment, encode_cursor
from api.state import PlatformDep
from api.wire import Body, Moment, Read, Time
from crewship import audit
from crewship.clock import now, rfc3339
from crewship.errors import NotFound, Unprocessable
from crewship.keys import make_key, revoke
from crewship.models import ApiKey

router = APIRouter(prefix="/keys", tags=["keys"])

KeyScope = Literal["read", "invoke", "deploy", "env", "admin"]


def _once_each(scopes: list[KeyScope]) -> list[KeyScope]:
    return sorted(set(scopes))


class KeyCreate(Body):
    name: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")
    ]
    """What it is for, to be known by in lists and in the audit log."""
    scopes: Annotated[list[KeyScope], AfterValidator(_once_each)] = Field(min_length=1, max_length=5)
    project: str | None = None
    """Binds it to one project, which need not be there yet."""
    expires_at: Moment | None = None


class KeyRead(Read):
    id: str
    name: str
    prefix: str
    """How the secret begins."""
    scopes: list[str]
    project: str | None
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    """To the minute."""
    revoked_at: Time | None
    status: Literal["active", "expired", "revoked"]

    @classmethod
    def of(cls, row: ApiKey) -> "KeyRead":
        return cls(**_fields(row))


class NewKeyRead(KeyRead):
    key: str
    """The secret. It is not stored and cannot be shown again."""


class KeyPage(Read):
    keys: list[KeyRead]
    next_cursor: str | None


def _fields(row: ApiKey) -> dict[str, object]:
    expired = row.expires_at is not None and row.expires_at <= now()
    return {
        "id": row.id,
        "name": row.name,
        "prefix": row.prefix,
        "scopes": row.scopes,
        "project": row.project,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "last_used_at": row.last_used_at,
        "revoked_at": row.revoked_at,
        "status": "revoked" if row.revoked_at is not None else "expired" if expired else "active",
    }


@router.post("", status_code=201)
async def create_key(body: KeyCreate, platform: PlatformDep, caller: AdminCaller, response: Response) -> NewKeyRead:
    """Create a key. The secret is in `key`, this once.

    A key for one project makes keys for that project only.
    """
    project = check_project_name(body.project) if body.project is not None else caller.project
    if project is not None:
        caller.require_project(project)
    if body.expires_at is not None and body.expires_at <= now():
        raise Unprocessable(
            "/expires_at: is in the past",
            errors=[{"pointer": "/expires_at", "detail": "is in the past"}],
            hint="give a time to come, or leave it out: then it does not expire",
        )
    made = make_key(body.name, list(body.scopes), project=project, expires_at=body.expires_at)

    def store(session: Session) -> None:
        session.add(made.row)
        audit.record(
            session, caller.actor, "key.created", project=project, target=made.row.id, after=_summary(made.row)
        )  # fmt: skip

    await platform.transact(store)
    response.headers["Location"] = f"/v1/keys/{made.row.id}"
    return NewKeyRead(**_fields(made.row), key=made.secret)


@router.get("")
async def list_keys(
    platform: PlatformDep,
    caller: AdminCaller,
    include_revoked: bool = False,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> KeyPage:
    """List keys, newest first; those that are revoked only with `include_revoked`."""
    query = select(ApiKey).order_by(col(ApiKey.created_at).desc(), col(ApiKey.id).desc()).limit(limit + 1)
    if caller.project is not None:
        query = query.where(ApiKey.project == caller.project)
    if not include_revoked:
        query = query.where(col(ApiKey.revoked_at).is_(None))
    if cursor is not None:
        query = query.where(tuple_(col(ApiKey.created_at), col(ApiKey.id)) < decode_moment(cursor))
    rows, more = cut(await platform.transact(lambda session: session.exec(query).all()), limit)
    return KeyPage(
        keys=[KeyRead.of(row) for row in rows],
        next_cursor=encode_cursor(rows[-1].created_at.isoformat(), rows[-1].id) if more else None,
    )


@router.get("/current")
async def get_current_key(platform: PlatformDep, caller: ReadCaller) -> KeyRead:
    """Get the key that this call is made with."""
    return KeyRead.of(await platform.transact(lambda session: session.get_one(ApiKey, caller.key_id)))


@router.get("/{key_id}")
async def get_key_by_id(key_id: str, platform: PlatformDep, caller: AdminCaller) -> KeyRead:
    """Get a key, without its secret."""
    return KeyRead.of(await platform.transact(lambda session: _get_key(session, caller, key_id)))


@router.delete("/{key_id}", status_code=204)
async def revoke_key(key_id: str, platform: PlatformDep, caller: AdminCaller) -> None:
    """Revoke a key: from the next call on it is refused. What it has open (an event stream) ends by itself.

    The last admin key that holds for all projects and does not expire cannot be revoked. A key that is revoked stays so.
    """

    def apply(session: Session) -> None:
        row = _get_key(session, caller, key_id)
        before = _summary(row)
        if revoke(session, row):
            audit.record(session, caller.actor, "key.revoked", project=row.project, target=key_id, before=before)

    await platform.transact(apply)


def _get_key(session: Session, caller: Caller, key_id: str) -> ApiKey:
    row = session.get(ApiKey, key_id) if "\0" not in key_id else None
    if row is None or (caller.project is not None and row.project != caller.project):
        raise NotFound(f"There is no key {key_id!r}", code="key_not_found", hint="crewship keys list")
    return row


def _summary(row: ApiKey) -> dict[str, object]:
    expires_at: datetime | None = row.expires_at
    return {
        "name": row.name,
        "prefix": row.prefix,
        "scopes": row.scopes,
        "expires_at": None if expires_at is None else rfc3339(expires_at),
    }
