"""Deployments: upload and build, list, show."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from fastapi import APIRouter, Request, Response
from pydantic import Field
from sqlmodel import Session, col, delete, select, tuple_
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from api.auth import Caller, DeployCaller, ReadCaller
from api.idempotency import IdempotencyKey, claim, digest, release
from api.lookups import check_project_name, get_deployment, get_project, require_live
from api.pages import CursorQuery, LimitQuery, cut, decode_moment, encode_cursor
from api.state import Platform, PlatformDep
from api.wire import ErrorRead, Events, Read, Time
from crewship import limits, source
from crewship.config import load
from crewship.contracts import DeployInput, DeploymentStatus
from crewship.db import ensure_project
from crewship.errors import InvalidConfig, InvalidRequest, Unavailable, Unprocessable
from crewship.hosts import require_engine
from crewship.ids import new_id
from crewship.models import Deployment, Project
from crewship.objects import source_key

router = APIRouter(tags=["deployments"])

_HOW_TO_SEND = "send the project as multipart/form-data with a file in the field source (.tar.gz); crewship deploy does"

_UPLOAD_BODY: Mapping[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["source"],
                    "properties": {
                        "source": {"type": "string", "format": "binary", "description": "The project as .tar.gz"},
                        "name": {"type": "string", "description": "Which [deployments.<name>] table is meant"},
                    },
                }
            }
        },
    }
}


class DeploymentRead(Read):
    id: str
    project: str
    status: DeploymentStatus
    config: dict[str, Any]
    image: str | None
    image_removed_at: Time | None
    """Set once retention took the image: deploy that version again to go back to it."""
    source_sha256: str
    created_at: Time
    ready_at: Time | None
    error: ErrorRead | None
    current: bool
    events: Events
    warnings: list[str] = Field(default_factory=list)
    """What was odd about the upload; in the answer to the upload only."""

    @classmethod
    def of(cls, row: Deployment, current_id: str | None, warnings: tuple[str, ...] = ()) -> "DeploymentRead":
        return cls(
            id=row.id,
            project=row.project,
            status=row.status,
            config=row.config,
            image=row.image,
            image_removed_at=row.image_removed_at,
            source_sha256=row.source_sha256,
            created_at=row.created_at,
            ready_at=row.ready_at,
            error=ErrorRead(**row.error) if row.error else None,
            current=row.id == current_id,
            events=Events(last_seq=row.last_seq),
            warnings=list(warnings),
        )


class DeploymentPage(Read):
    deployments: list[DeploymentRead]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class _Upload:
    sha256: str
    config: dict[str, Any]
    warnings: tuple[str, ...]


@router.post(
    "/projects/{project}/deployments",
    status_code=202,
    openapi_extra=dict(_UPLOAD_BODY),
    responses={200: {"model": DeploymentRead, "description": "The same call came before"}},
)
async def create_deployment(
    project: str,
    request: Request,
    response: Response,
    platform: PlatformDep,
    caller: DeployCaller,
    activate: bool = True,
    key: IdempotencyKey = None,
) -> DeploymentRead:
    """Upload a project and build a deployment of it; creates the project when it is missing.

    What can be seen in the upload is refused at once. With `activate=false` it is built without becoming current.
    """
    check_project_name(project)
    caller.require_project(project)
    await platform.dispatch.check()
    await platform.make_store()
    async with _form(request) as form:
        file, name = form.get("source"), form.get("name")
        if not isinstance(file, UploadFile):
            raise Unprocessable(
                "/source: is missing",
                errors=[{"pointer": "/source", "detail": "is missing"}],
                hint=_HOW_TO_SEND,
            )
        upload = await platform.with_store(lambda _: _take(platform, file.file, name if name else None))
    return await _record(platform, caller, project, upload, activate, key, str(name or ""), response)


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    """The upload's form.

    Raises:
        InvalidRequest: it cannot be read.
    """
    async with AsyncExitStack() as stack:
        try:
            form = await stack.enter_async_context(request.form(max_files=1, max_fields=4, max_part_size=64 * 1024))
        except HTTPException as error:
            if error.status_code != 400:
                raise
            raise InvalidRequest(f"The form cannot be read: {error.detail}", hint=_HOW_TO_SEND) from error
        yield form


def _take(platform: Platform, file: BinaryIO, name: object) -> _Upload:
    """Check the upload, then keep it. In a thread; the file is on disk if it is large."""
    file.seek(0)
    summary = source.check(file, source.Limits.of(platform.settings.max_source_bytes))
    config = load(summary.config, str(name) if name is not None else None)
    limits.check(config, platform.settings)
    if config.network.mode == "allow":
        # A list that nothing enforces would be worse than none: whoever wrote it counts on it.
        raise InvalidConfig(
            "[network] allow: this platform cannot restrict a run to named hosts yet",
            hint='leave it out (open), or set mode = "none" under [network] to close the network',
        )
    file.seek(0)
    platform.store.put(source_key(summary.sha256), file)
    return _Upload(summary.sha256, config.model_dump(mode="json"), summary.warnings)


async def _record(
    platform: Platform,
    caller: Caller,
    project: str,
    upload: _Upload,
    activate: bool,
    key: str | None,
    name: str,
    response: Response,
) -> DeploymentRead:
    deployment_id, scope = new_id("dep"), f"deployments:{project}:{caller.key_id}"
    body = digest({"source": upload.sha256, "name": name, "activate": activate})

    def record(session: Session) -> tuple[DeploymentRead, DeployInput | None]:
        if (held := claim(session, scope, key, body, deployment_id)) != deployment_id:
            row = get_deployment(session, caller, held)
            return DeploymentRead.of(row, session.get_one(Project, row.project).current_deployment_id), None
        require_engine(session, platform.settings.host)
        owner = require_live(ensure_project(session, project))
        row = Deployment(
            id=deployment_id,
            project=project,
            config=upload.config,
            host=platform.settings.host,
            activate=activate,
            source_key=source_key(upload.sha256),
            source_sha256=upload.sha256,
            env_version=owner.env_version,
            created_by=caller.key_id,
        )
        session.add(row)
        start = DeployInput(
            deployment_id=deployment_id, project=project, host=row.host, activate=activate, actor=caller.key_id
        )
        return DeploymentRead.of(row, owner.current_deployment_id, upload.warnings), start

    deployment, start = await platform.transact(record)
    response.headers["Location"] = f"/v1/deployments/{deployment.id}"
    if start is None:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
        return deployment
    try:
        await platform.dispatch.start_deploy(start)
    except Unavailable:

        def forget(session: Session) -> None:
            session.exec(delete(Deployment).where(col(Deployment.id) == deployment_id))
            release(session, scope, key)

        await platform.transact(forget)
        raise
    return deployment


@router.get("/projects/{project}/deployments")
async def list_deployments(
    project: str, platform: PlatformDep, caller: ReadCaller, cursor: CursorQuery = None, limit: LimitQuery = 50
) -> DeploymentPage:
    """List a project's deployments, newest first."""
    query = (
        select(Deployment)
        .where(Deployment.project == project)
        .order_by(col(Deployment.created_at).desc(), col(Deployment.id).desc())
        .limit(limit + 1)
    )
    if cursor is not None:
        query = query.where(tuple_(col(Deployment.created_at), col(Deployment.id)) < decode_moment(cursor))

    def read(session: Session) -> DeploymentPage:
        current_id = get_project(session, caller, project).current_deployment_id
        rows, more = cut(session.exec(query).all(), limit)
        return DeploymentPage(
            deployments=[DeploymentRead.of(row, current_id) for row in rows],
            next_cursor=encode_cursor(rows[-1].created_at.isoformat(), rows[-1].id) if more else None,
        )

    return await platform.transact(read)


@router.get("/deployments/{deployment_id}")
async def get_deployment_by_id(deployment_id: str, platform: PlatformDep, caller: ReadCaller) -> DeploymentRead:
    """Get a deployment."""

    def read(session: Session) -> DeploymentRead:
        row = get_deployment(session, caller, deployment_id)
        return DeploymentRead.of(row, session.get_one(Project, row.project).current_deployment_id)

    return await platform.transact(read)
