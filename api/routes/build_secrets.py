"""Secrets of a project's builds: set and unset, never read back. The next build has them; a run never does."""

from fastapi import APIRouter
from sqlmodel import Session, col, delete, select

from api.auth import EnvCaller, ReadCaller
from api.lookups import check_project_name, get_project, require_live
from api.routes.env import EnvUpdate, validate_update
from api.state import PlatformDep
from api.values import escaped
from api.wire import Read, Time
from crewship import audit
from crewship.build_secrets import RESERVED, context
from crewship.clock import now
from crewship.db import ensure_project
from crewship.errors import Unprocessable
from crewship.models import BuildSecret

router = APIRouter(prefix="/projects/{project}/build-secrets", tags=["env"])

_MAX_BYTES = 96 * 1024
"""Of all values but the CA bundle: a command's environment has room for 128 KiB with what the build itself sets."""


class BuildSecretRead(Read):
    """A build secret without its value."""

    name: str
    updated_at: Time


class BuildSecretPage(Read):
    build_secrets: list[BuildSecretRead]


@router.get("")
async def list_build_secrets(project: str, platform: PlatformDep, caller: ReadCaller) -> BuildSecretPage:
    """List the build secrets' names."""

    def read(session: Session) -> list[BuildSecret]:
        get_project(session, caller, project)
        return _rows(session, project)

    return _page(await platform.transact(read))


@router.patch("")
async def update_build_secrets(
    project: str, body: EnvUpdate, platform: PlatformDep, caller: EnvCaller
) -> BuildSecretPage:
    """Set and unset build secrets, all or nothing; creates the project when it is missing."""
    check_project_name(project)
    caller.require_project(project)
    validate_update(body)
    reserved = sorted(RESERVED & set(body.set))
    if reserved:
        raise Unprocessable(
            f"/set/{escaped(reserved[0])}: the build sets this itself",
            errors=[{"pointer": f"/set/{escaped(name)}", "detail": "the build sets this itself"} for name in reserved],
            hint="use another name; ${NAME} in requirements.txt stands for a secret of any name",
        )
    if sum(len(name) + len(value) for name, value in body.set.items() if name != "CA_BUNDLE") > _MAX_BYTES:
        raise Unprocessable(
            "/set: the values are too large together",
            errors=[{"pointer": "/set", "detail": f"has more than {_MAX_BYTES // 1024} KiB"}],
            hint="a build's secrets are addresses and passwords; files belong into the project",
        )
    sealed = {name: platform.sealer.seal(value, context(project, name)) for name, value in body.set.items()}

    def apply(session: Session) -> list[BuildSecret]:
        require_live(ensure_project(session, project, caller.actor))
        if not sealed and not body.unset:
            return _rows(session, project)
        gone = col(BuildSecret.name).in_([*sealed, *body.unset])
        replaced = session.exec(
            delete(BuildSecret).where(col(BuildSecret.project) == project, gone).returning(col(BuildSecret.name))
        ).scalars()
        audit.record(
            session,
            caller.actor,
            "build_secrets.changed",
            project=project,
            target=project,
            before={"names": sorted(replaced)},
            after={"set": sorted(sealed), "unset": sorted(set(body.unset))},
        )
        session.add_all(
            BuildSecret(project=project, name=name, sealed=value, updated_at=now()) for name, value in sealed.items()
        )
        session.flush()
        return _rows(session, project)

    return _page(await platform.transact(apply))


def _rows(session: Session, project: str) -> list[BuildSecret]:
    return list(session.exec(select(BuildSecret).where(BuildSecret.project == project).order_by(col(BuildSecret.name))))


def _page(rows: list[BuildSecret]) -> BuildSecretPage:
    return BuildSecretPage(build_secrets=[BuildSecretRead(name=row.name, updated_at=row.updated_at) for row in rows])
