"""What is current: rollback and promotion, which swap the project's pointer without a build, and the history of all switches."""

import time
from typing import Literal

from fastapi import APIRouter
from sqlmodel import Session, col, select

from api.auth import Caller, DeployCaller, ReadCaller
from api.lookups import get_deployment, get_project, require_live
from api.pages import CursorQuery, LimitQuery, cut, decode_number, encode_cursor
from api.state import Platform, PlatformDep
from api.wire import Body, Read, Time
from crewship import environment
from crewship.contracts import RollbackInput, host_queue
from crewship.errors import Conflict, CrewshipError, NotFound
from crewship.ids import new_id
from crewship.models import Activation, ApiKey, Deployment
from crewship.projects import ActivationKind, rollback_target

router = APIRouter(tags=["deployments"])

_ERRORS: dict[str, type[CrewshipError]] = {"project_not_found": NotFound, "deployment_not_found": NotFound}


class RollbackCreate(Body):
    deployment_id: str | None = None
    with_env: bool = False
    """Restore the env vars too: those that the deployment last ran with."""


class PromoteCreate(Body):
    with_env: bool = False


class EnvNames(Read):
    """Names of env vars; never their values."""

    added: list[str]
    removed: list[str]
    changed: list[str]


class EnvSwitch(Read):
    """The env vars around a switch."""

    version: int
    """In force now."""
    deployment_version: int | None
    """What the deployment last ran with; null when that is not known."""
    restored: bool
    """Whether the switch has restored them."""
    changes: EnvNames
    """From what the deployment last ran with to what is in force now."""


class RollbackRead(Read):
    project: str
    deployment_id: str
    previous_deployment_id: str | None
    changed: bool
    env: EnvSwitch | None
    """Null when nothing was switched."""
    duration_ms: int


class ActivationRead(Read):
    id: int
    kind: ActivationKind
    deployment_id: str
    previous_deployment_id: str | None
    env_version: int | None
    """From then on; differs from ``previous_env_version`` when the switch restored the env vars."""
    previous_env_version: int | None
    by: str
    """Id of the API key."""
    by_name: str | None
    """Its name; null when there is no such key any more."""
    at: Time


class ActivationPage(Read):
    activations: list[ActivationRead]
    next_cursor: str | None


@router.post("/projects/{project}/rollback")
async def roll_back(
    project: str, platform: PlatformDep, caller: DeployCaller, body: RollbackCreate | None = None
) -> RollbackRead:
    """Make a ready deployment current; left out, it is the one that was current before the last switch.

    Env vars stay as they are, unless `with_env`; what differs since that deployment was current is named.
    """
    asked = body or RollbackCreate()
    return await _switch(platform, caller, project, asked.deployment_id, "rollback", asked.with_env)


@router.post("/deployments/{deployment_id}/promote")
async def promote(
    deployment_id: str, platform: PlatformDep, caller: DeployCaller, body: PromoteCreate | None = None
) -> RollbackRead:
    """Make a ready deployment its project's current one, as one that was deployed with `activate=false`."""
    found = await platform.transact(lambda session: get_deployment(session, caller, deployment_id))
    asked = body or PromoteCreate()
    return await _switch(platform, caller, found.project, deployment_id, "promote", asked.with_env)


@router.get("/projects/{project}/activations")
async def list_activations(
    project: str, platform: PlatformDep, caller: ReadCaller, cursor: CursorQuery = None, limit: LimitQuery = 50
) -> ActivationPage:
    """List what was current when: each switch with who made it, the newest first."""
    query = (
        select(Activation, ApiKey.name)
        .join(ApiKey, col(ApiKey.id) == col(Activation.actor), isouter=True)
        .where(Activation.project == project)
        .order_by(col(Activation.id).desc())
        .limit(limit + 1)
    )
    if cursor is not None:
        query = query.where(col(Activation.id) < decode_number(cursor))

    def read(session: Session) -> ActivationPage:
        get_project(session, caller, project)
        rows, more = cut(session.exec(query).all(), limit)
        return ActivationPage(
            activations=[_activation(row, name) for row, name in rows],
            next_cursor=encode_cursor(str(rows[-1][0].id)) if more else None,
        )

    return await platform.transact(read)


def _activation(row: Activation, name: str | None) -> ActivationRead:
    return ActivationRead(
        id=row.id,
        kind=row.kind,
        deployment_id=row.deployment_id,
        previous_deployment_id=row.previous_deployment_id,
        env_version=row.env_version,
        previous_env_version=row.previous_env_version,
        by=row.actor,
        by_name=name,
        at=row.at,
    )


async def _switch(
    platform: Platform,
    caller: Caller,
    project: str,
    wanted: str | None,
    kind: Literal["rollback", "promote"],
    with_env: bool,
) -> RollbackRead:
    began = time.perf_counter()

    def target(session: Session) -> tuple[Deployment, int | None]:
        require_live(get_project(session, caller, project))
        deployment = rollback_target(session, project, wanted)
        return deployment, environment.last_version_of(session, deployment)

    deployment, ran_with = await platform.transact(target)
    await platform.dispatch.check()
    # Always by id: "the previous one" would be another one when the switch is tried again.
    asked = RollbackInput(
        project=project,
        deployment_id=deployment.id,
        actor=caller.key_id,
        by=caller.actor,
        kind=kind,
        key=new_id("act"),
        with_env=with_env,
    )
    result = await platform.dispatch.rollback(asked, host_queue(deployment.host))
    if result.error_code is not None:
        error = _ERRORS.get(result.error_code, Conflict)
        raise error(result.error_detail or "The switch was refused", code=result.error_code, hint=result.error_hint)
    env = None
    if (version := result.env_version) is not None:
        found = environment.EnvDifference()
        if ran_with is not None and ran_with != version:
            opened = platform.sealer.open
            found = await platform.transact(
                lambda session: environment.difference(session, project, ran_with, version, opened)
            )
        env = EnvSwitch(
            version=version,
            deployment_version=ran_with,
            restored=version != result.previous_env_version,
            changes=EnvNames(added=list(found.added), removed=list(found.removed), changed=list(found.changed)),
        )
    return RollbackRead(
        project=project,
        deployment_id=result.deployment_id,
        previous_deployment_id=result.previous_deployment_id,
        changed=result.changed,
        env=env,
        duration_ms=round((time.perf_counter() - began) * 1000),
    )
