"""Uploads in parts: begin or go on with one, send a part. A deployment is made of it by its digest.

POST /uploads {source_sha256, size_bytes} ──► which parts are missing
PUT  /uploads/{sha256}/parts/{number}     ──► as often as it takes, in any order, each as often as one likes
POST /deployments with source_sha256      ──► checks digest and content of the whole, and builds it
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field
from sqlmodel import Session

from api.auth import DeployCaller
from api.lookups import check_project_name, require_live
from api.sources import drop
from api.state import Platform, PlatformDep
from api.wire import Body, Read, Time
from crewship import uploads
from crewship.clock import now
from crewship.errors import Conflict, InvalidRequest, NotFound, TooLarge
from crewship.models import Project, Upload
from crewship.uploads import PART_BYTES, Parts

router = APIRouter(prefix="/projects/{project}/uploads", tags=["deployments"])

_DIGEST = r"^[0-9a-f]{64}$"
Digest = Annotated[str, Path(pattern=_DIGEST, description="SHA-256 of the whole archive, in hex")]

_PART_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class UploadCreate(Body):
    source_sha256: str = Field(pattern=_DIGEST)
    """Of the whole .tar.gz, in hex."""
    size_bytes: int = Field(ge=1, le=2**53)
    """Of the whole .tar.gz."""


class UploadRead(Read):
    project: str
    source_sha256: str
    size_bytes: int
    part_bytes: int
    """Size of each part but the last, which is what is left."""
    missing: list[int]
    """Numbers of the parts that are not there, from 0; the bytes of part N begin at N × `part_bytes`."""
    created_at: Time
    expires_at: Time
    """When it is dropped unless another part comes."""

    @classmethod
    def of(cls, row: Upload, missing: list[int]) -> "UploadRead":
        return cls(
            project=row.project,
            source_sha256=row.source_sha256,
            size_bytes=row.size_bytes,
            part_bytes=PART_BYTES,
            missing=missing,
            created_at=row.created_at,
            expires_at=row.touched_at + uploads.KEPT,
        )


@router.post(
    "",
    status_code=201,
    responses={200: {"model": UploadRead, "description": "It was begun before: send what is missing"}},
)
async def begin_upload(
    project: str, body: UploadCreate, platform: PlatformDep, caller: DeployCaller, response: Response
) -> UploadRead:
    """Begin to upload a source in parts, or go on with it."""
    check_project_name(project)
    caller.require_project(project)
    if body.size_bytes > platform.settings.max_source_bytes:
        raise TooLarge(
            f"The upload is larger than {platform.settings.max_source_bytes:,} bytes, compressed",
            code="source_too_large",
            hint="leave out what the crew does not need: [build] exclude in crewship.toml, or .gitignore",
        )
    await platform.make_store()
    parts = Parts(project, body.source_sha256, body.size_bytes)

    def begin(session: Session) -> tuple[Upload, bool, list[Parts]]:
        if (owner := session.get(Project, project)) is not None:
            require_live(owner)
        row, is_new, dropped = uploads.begin(session, parts, caller.key_id)
        if row.size_bytes != body.size_bytes:
            raise Conflict(
                f"An upload of that digest was begun with {row.size_bytes:,} bytes, not {body.size_bytes:,}",
                code="upload_conflict",
                hint="one of the two is not the archive's size; what nobody goes on with is dropped after a day",
            )
        return row, is_new, dropped

    row, is_new, dropped = await platform.transact(begin)
    for other in dropped:
        await platform.with_store(other.drop)
    if not is_new:
        response.status_code = 200
    return UploadRead.of(row, await platform.with_store(parts.missing))


@router.put("/{sha256}/parts/{number}", status_code=204, openapi_extra=_PART_BODY)
async def put_part(
    project: str, sha256: Digest, number: int, request: Request, platform: PlatformDep, caller: DeployCaller
) -> None:
    """Send a part of a source; one that is there is replaced, so a call whose answer was lost may be repeated."""
    check_project_name(project)
    caller.require_project(project)
    parts = await platform.transact(lambda session: _parts(session, project, sha256))
    if not 0 <= number < parts.count:
        raise InvalidRequest(
            f"The upload has no part {number}: its {parts.size_bytes:,} bytes are the parts 0 to {parts.count - 1}",
            code="invalid_part",
            hint=f"part N begins at byte N × {PART_BYTES}",
        )
    announced = request.headers.get("content-length", "")
    if announced.isdigit():
        _check_size(parts, number, int(announced))  # before it has come
    content = await request.body()
    _check_size(parts, number, len(content))
    await platform.with_store(lambda store: store.put(parts.key(number), content))
    await _touch(platform, parts)


def _parts(session: Session, project: str, sha256: str) -> Parts:
    row = session.get(Upload, (project, sha256))
    if row is None:
        raise NotFound(
            f"There is no upload of {sha256[:12]}… in the project",
            code="upload_not_found",
            hint=f"begin it: POST /v1/projects/{project}/uploads",
        )
    return Parts.of(row)


def _check_size(parts: Parts, number: int, size_bytes: int) -> None:
    if size_bytes != parts.size_of(number):
        raise InvalidRequest(
            f"Part {number} has {parts.size_of(number):,} bytes, not {size_bytes:,}",
            code="invalid_part",
            hint=f"each part has {PART_BYTES} bytes, the last one what is left of {parts.size_bytes}",
        )


async def _touch(platform: Platform, parts: Parts) -> None:
    """Note that the upload goes on; when it was dropped meanwhile, the part goes too."""

    def touch(session: Session) -> None:
        _parts(session, parts.project, parts.sha256)
        row = session.get_one(Upload, (parts.project, parts.sha256))
        row.touched_at = now()
        session.add(row)

    try:
        await platform.transact(touch)
    except NotFound:
        await drop(platform, parts)
        raise
