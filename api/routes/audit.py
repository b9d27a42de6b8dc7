"""The audit log: read only, newest first."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlmodel import Session, col, select

from api.auth import AdminCaller
from api.pages import CursorQuery, LimitQuery, cut, decode_cursor, encode_cursor
from api.state import PlatformDep
from api.wire import Moment, Read, Time
from crewship.errors import InvalidCursor
from crewship.models import AuditEntry

router = APIRouter(prefix="/audit", tags=["audit"])

_Word = Annotated[str | None, Query(max_length=255, pattern=r"^[^\x00]*$")]


class ActorRead(Read):
    key_id: str | None
    """null: the platform itself, retention for example."""
    name: str
    """The key's name when it happened."""


class AuditRead(Read):
    id: str
    at: Time
    action: str
    actor: ActorRead
    address: str | None
    project: str | None
    target: str | None
    """Id or name of what was changed."""
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @classmethod
    def of(cls, row: AuditEntry) -> "AuditRead":
        return cls(
            id=f"aud_{row.id:012d}",
            at=row.at,
            action=row.action,
            actor=ActorRead(key_id=row.key_id, name=row.actor),
            address=row.address,
            project=row.project,
            target=row.target,
            before=row.before,
            after=row.after,
        )


class AuditPage(Read):
    audit: list[AuditRead]
    next_cursor: str | None


@router.get("")
async def list_audit(
    platform: PlatformDep,
    caller: AdminCaller,
    project: _Word = None,
    action: Annotated[
        str | None,
        Query(
            max_length=63, pattern=r"^[a-z_]+(\.[a-z_]+)?$", description="`env.changed`, or `env` for all of that noun"
        ),
    ] = None,
    key_id: Annotated[
        str | None, Query(max_length=63, pattern=r"^[^\x00]*$", description="Who: changes by this key")
    ] = None,
    target: Annotated[
        str | None, Query(max_length=255, pattern=r"^[^\x00]*$", description="Id or name of what was changed")
    ] = None,
    since: Annotated[Moment | None, Query(description="Then or later")] = None,
    until: Annotated[Moment | None, Query(description="Before then")] = None,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> AuditPage:
    """List who changed what, newest first. A key for one project sees that project's entries."""
    query = select(AuditEntry).order_by(col(AuditEntry.id).desc()).limit(limit + 1)
    for column, wanted in (
        (AuditEntry.project, caller.project),
        (AuditEntry.project, project),
        (AuditEntry.key_id, key_id),
        (AuditEntry.target, target),
    ):
        if wanted is not None:
            query = query.where(col(column) == wanted)
    if action is not None:
        query = query.where(
            col(AuditEntry.action) == action if "." in action else col(AuditEntry.action).startswith(f"{action}.")
        )
    if since is not None:
        query = query.where(AuditEntry.at >= since)
    if until is not None:
        query = query.where(AuditEntry.at < until)
    if cursor is not None:
        query = query.where(col(AuditEntry.id) < _place(cursor))

    def read(session: Session) -> AuditPage:
        rows, more = cut(session.exec(query).all(), limit)
        return AuditPage(
            audit=[AuditRead.of(row) for row in rows], next_cursor=encode_cursor(str(rows[-1].id)) if more else None
        )

    return await platform.transact(read)


def _place(cursor: str) -> int:
    (place,) = decode_cursor(cursor, 1)
    if not (place.isascii() and place.isdigit() and len(place) <= 18):
        raise InvalidCursor("The cursor is not one of this list", hint="pass next_cursor on as it came")
    return int(place)
