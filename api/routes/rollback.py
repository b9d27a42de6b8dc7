"""Rollback: a swap of the project's pointer, no build."""

import time

from fastapi import APIRouter
from sqlmodel import Session

from api.auth import DeployCaller
from api.lookups import get_project, require_live
from api.state import PlatformDep
from api.wire import Body, Read
from crewship.contracts import RollbackInput, host_queue
from crewship.errors import Conflict, CrewshipError, NotFound
from crewship.models import Deployment
from crewship.projects import rollback_target

router = APIRouter(tags=["deployments"])

_ERRORS: dict[str, type[CrewshipError]] = {"project_not_found": NotFound, "deployment_not_found": NotFound}


class RollbackCreate(Body):
    deployment_id: str | None = None


class RollbackRead(Read):
    project: str
    deployment_id: str
    previous_deployment_id: str | None
    changed: bool
    duration_ms: int


@router.post("/projects/{project}/rollback")
async def roll_back(
    project: str, platform: PlatformDep, caller: DeployCaller, body: RollbackCreate | None = None
) -> RollbackRead:
    """Make a ready deployment current; left out, it is the one that was current before the last switch."""
    began = time.perf_counter()
    wanted = body.deployment_id if body is not None else None

    def target(session: Session) -> Deployment:
        require_live(get_project(session, caller, project))
        return rollback_target(session, project, wanted)

    deployment = await platform.transact(target)
    await platform.dispatch.check()
    # Always by id: "the previous one" would be another one when the switch is tried again.
    result = await platform.dispatch.rollback(
        RollbackInput(project=project, deployment_id=deployment.id, actor=caller.key_id, by=caller.actor),
        host_queue(deployment.host),
    )
    if result.error_code is not None:
        kind = _ERRORS.get(result.error_code, Conflict)
        raise kind(result.error_detail or "The rollback was refused", code=result.error_code, hint=result.error_hint)
    return RollbackRead(
        project=project,
        deployment_id=result.deployment_id,
        previous_deployment_id=result.previous_deployment_id,
        changed=result.changed,
        duration_ms=round((time.perf_counter() - began) * 1000),
    )
