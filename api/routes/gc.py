"""Garbage: what retention does not keep, shown or taken."""

from fastapi import APIRouter

from api.auth import AdminCaller
from api.state import PlatformDep
from api.wire import Read
from crewship.contracts import GarbageInput
from crewship.errors import Forbidden

router = APIRouter(prefix="/gc", tags=["platform"])

_SHOWN = 1000
_TAKEN = 50
"""In one call, so that it answers in time; ``more`` says that there is more."""


class RemovalRead(Read):
    kind: str
    """`run`, `artifacts`, `log`, `source`, `upload`, `image`, `dependencies`, `volume` or `network`."""
    name: str
    why: str
    bytes: int | None
    """null where it is not known."""
    host: str | None
    """The container host it is on; null for what is in the database and the object store."""


class GarbageRead(Read):
    dry_run: bool
    removals: list[RemovalRead]
    bytes: int
    more: bool
    unreachable_hosts: list[str]


@router.post("")
async def collect_garbage(platform: PlatformDep, caller: AdminCaller, dry_run: bool = False) -> GarbageRead:
    """Take what retention does not keep, a limited step a call (`more`: call again); with `dry_run` only show it."""
    if caller.project is not None:
        raise Forbidden(f"This key is for project {caller.project}; retention is about the whole platform")
    result = await platform.dispatch.collect_garbage(
        GarbageInput(dry_run=dry_run, limit=_SHOWN if dry_run else _TAKEN, by=caller.actor)
    )
    return GarbageRead(
        dry_run=dry_run,
        removals=[RemovalRead(**removal.model_dump()) for removal in result.removals],
        bytes=sum(removal.bytes or 0 for removal in result.removals),
        more=result.more,
        unreachable_hosts=result.unreachable_hosts,
    )
