"""Deployments: upload and build, list, show, cancel."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from sqlmodel import Session, col, delete, select, tuple_
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from api.auth import Caller, DeployCaller, ReadCaller
from api.idempotency import IdempotencyKey, claim, digest, release
from api.lookups import check_project_name, get_deployment, get_project, require_live
from api.pages import CursorQuery, LimitQuery, cut, decode_moment, encode_cursor
from api.sources import HOW_TO_SEND, Source, done, find, take
from api.state import Platform, PlatformDep
from api.wire import ErrorRead, Events, Read, Time
from crewship import audit
from crewship.contracts import DeployInput, DeploymentStatus, RecognizeInput, host_queue
from crewship.db import ensure_project
from crewship.errors import InvalidRequest, NotFound, Unavailable, Unprocessable
from crewship.hosts import require_engine
from crewship.ids import new_id
from crewship.models import Deployment, Idempotency, Project
from crewship.objects import source_key

router = APIRouter(tags=["deployments"])

_SHA256 = re.compile(r"[0-9a-f]{64}")

_UPLOAD_BODY: Mapping[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "source": {"type": "string", "format": "binary", "description": "The project as .tar.gz"},
                        "source_sha256": {
                            "type": "string",
                            "description": "Instead of `source`: digest of an archive that the project was deployed from "
                            "before, or whose parts it has; 404 `source_unknown` and 409 `upload_incomplete` ask for the archive",
                        },
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
    base_image: str | None
    """Id (digest) of the image that it is built on."""
    python: str | None
    """Version of its interpreter."""
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
    unchanged: bool = False
    """Whether the upload is what this deployment was built from, so that there was nothing to do; in that answer only."""

    @classmethod
    def of(
        cls, row: Deployment, current_id: str | None, warnings: tuple[str, ...] = (), *, unchanged: bool = False
    ) -> "DeploymentRead":
        return cls(
            id=row.id,
            project=row.project,
            status=row.status,
            config=row.config,
            image=row.image,
            base_image=row.base_image,
            python=row.python,
            image_removed_at=row.image_removed_at,
            source_sha256=row.source_sha256,
            created_at=row.created_at,
            ready_at=row.ready_at,
            error=ErrorRead(**row.error) if row.error else None,
            current=row.id == current_id,
            events=Events(last_seq=row.last_seq),
            warnings=list(warnings),
            unchanged=unchanged,
        )


class DeploymentPage(Read):
    deployments: list[DeploymentRead]
    next_cursor: str | None


@router.post(
    "/projects/{project}/deployments",
    status_code=202,
    openapi_extra=dict(_UPLOAD_BODY),
    responses={200: {"model": DeploymentRead, "description": "The same call came before, or nothing has changed"}},
)
async def create_deployment(
    project: str,
    request: Request,
    response: Response,
    platform: PlatformDep,
    caller: DeployCaller,
    activate: bool = True,
    force: Annotated[bool, Query(description="Build also what is current already")] = False,
    key: IdempotencyKey = None,
) -> DeploymentRead:
    """Upload a project and build a deployment of it; creates the project when it is missing.

    What can be seen in the upload is refused at once. With `activate=false` it is built without becoming current. When the
    current deployment was built from the same source, config, base image and platform, the answer is that one, `unchanged`.
    """
    check_project_name(project)
    caller.require_project(project)
    await platform.dispatch.check()
    await platform.make_store()
    async with _form(request) as form:
        file, name, sha256 = form.get("source"), form.get("name"), form.get("source_sha256")
        table = str(name) if name else None
        if isinstance(file, UploadFile):
            upload = await platform.with_store(lambda _: take(platform, file.file, table))
        elif isinstance(sha256, str) and _SHA256.fullmatch(sha256):
            upload = await find(platform, project, sha256, table)
        else:
            raise Unprocessable(
                "/source: is missing",
                errors=[{"pointer": "/source", "detail": "is missing"}],
                hint=HOW_TO_SEND,
            )
    scope = f"deployments:{project}:{caller.key_id}"
    if not force and (same := await _unchanged(platform, project, upload, scope, key)) is not None:
        response.headers["Location"] = f"/v1/deployments/{same.id}"
        response.status_code = 200
        await done(platform, upload)
        return same
    deployment = await _record(platform, caller, project, upload, activate, scope, key, str(name or ""), response)
    await done(platform, upload)
    return deployment


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
            raise InvalidRequest(f"The form cannot be read: {error.detail}", hint=HOW_TO_SEND) from error
        yield form


async def _unchanged(
    platform: Platform, project: str, upload: Source, scope: str, key: str | None
) -> DeploymentRead | None:
    """The current deployment, if that is what would be built; None when it is another one or cannot be told."""

    def candidate(session: Session) -> Deployment | None:
        owner = session.get(Project, project)
        if owner is None or owner.deleting or owner.current_deployment_id is None:
            return None
        if key is not None and session.get(Idempotency, (scope, key)) is not None:
            return None  # what this call has made before counts
        at_work = select(Deployment.id).where(
            Deployment.project == project, col(Deployment.activate), col(Deployment.last_seq).is_(None)
        )
        if session.exec(at_work.limit(1)).first() is not None:
            return None  # what is current may be another one in a moment
        current = session.get_one(Deployment, owner.current_deployment_id)
        is_same = current.source_sha256 == upload.sha256 and current.config == upload.config
        return current if is_same and current.recipe is not None and current.image_removed_at is None else None

    current = await platform.transact(candidate)
    if current is None:
        return None
    try:
        asked = RecognizeInput(deployment_id=current.id, project=project)
        if not await platform.dispatch.recognize(asked, host_queue(current.host)):
            return None
    except Unavailable:
        return None  # a build says what is away, and how to mend it
    return DeploymentRead.of(current, current.id, upload.warnings, unchanged=True)


async def _record(
    platform: Platform,
    caller: Caller,
    project: str,
    upload: Source,
    activate: bool,
    scope: str,
    key: str | None,
    name: str,
    response: Response,
) -> DeploymentRead:
    deployment_id = new_id("dep")
    body = digest({"source": upload.sha256, "name": name, "activate": activate})

    def record(session: Session) -> tuple[DeploymentRead, DeployInput | None]:
        if (held := claim(session, scope, key, body, deployment_id)) != deployment_id:
            row = get_deployment(session, caller, held)
            return DeploymentRead.of(row, session.get_one(Project, row.project).current_deployment_id), None
        require_engine(session, platform.settings.host, restricted=upload.config["network"]["mode"] == "allow")
        owner = require_live(ensure_project(session, project, caller.actor))
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
        audit.record(
            session,
            caller.actor,
            "deployment.created",
            project=project,
            target=deployment_id,
            after={"source_sha256": upload.sha256, "activate": activate},
        )
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
            audit.record(session, caller.actor, "deployment.withdrawn", project=project, target=deployment_id)

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


@router.post(
    "/deployments/{deployment_id}/cancel",
    status_code=202,
    responses={200: {"model": DeploymentRead, "description": "It had ended"}},
)
async def cancel_deployment(
    deployment_id: str, platform: PlatformDep, caller: DeployCaller, response: Response
) -> DeploymentRead:
    """Stop a build: the deployment becomes `failed` with the code `canceled`. One that has ended stays as it is."""

    def read(session: Session) -> tuple[DeploymentRead, DeployInput]:
        row = get_deployment(session, caller, deployment_id)
        start = DeployInput(
            deployment_id=row.id, project=row.project, host=row.host, activate=row.activate, actor=row.created_by
        )
        return DeploymentRead.of(row, session.get_one(Project, row.project).current_deployment_id), start

    def ask(session: Session) -> tuple[DeploymentRead, DeployInput]:
        deployment, start = read(session)
        if deployment.status in ("pending", "building"):
            audit.record(
                session, caller.actor, "deployment.canceled", project=start.project, target=deployment_id,
                before={"status": deployment.status},
            )  # fmt: skip
        return deployment, start

    deployment, start = await platform.transact(ask)
    if deployment.status in ("pending", "building"):
        try:
            await platform.dispatch.cancel_deploy(deployment_id)
        except NotFound:
            # Ended just now, or written and not started yet: then it is started, so as to end in order.
            await platform.dispatch.start_deploy(start)
            with suppress(NotFound):
                await platform.dispatch.cancel_deploy(deployment_id)
        deployment, _ = await platform.transact(read)
    if deployment.status not in ("pending", "building"):
        response.status_code = 200
    return deployment
