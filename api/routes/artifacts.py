"""Artifacts of a run: list and download. A name may hold ``/`` and any other character."""

import re
from collections.abc import Iterator
from itertools import chain
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from sqlmodel import Session, col, select
from starlette.convertors import Convertor, register_url_convertor

from api.auth import ReadCaller
from api.document import ARTIFACT
from api.lookups import get_run
from api.problems import problem
from api.state import PlatformDep
from api.wire import Read, Time
from crewship.errors import NotFound
from crewship.models import Artifact
from crewship.storage import ObjectMissing, ObjectStore

router = APIRouter(prefix="/runs/{run_id}/artifacts", tags=["artifacts"])


class _AnyName(Convertor[str]):
    """As ``path``, but with line breaks: a file's name may have them."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("artifact", _AnyName())  # here, because the route's pattern is compiled where it is declared


class ArtifactRead(Read):
    name: str
    size: int
    content_type: str
    sha256: str
    created_at: Time


class ArtifactPage(Read):
    artifacts: list[ArtifactRead]


@router.get("")
async def list_artifacts(run_id: str, platform: PlatformDep, caller: ReadCaller) -> ArtifactPage:
    """List a run's artifacts by name."""

    def read(session: Session) -> list[Artifact]:
        get_run(session, caller, run_id)
        return list(session.exec(select(Artifact).where(Artifact.run_id == run_id).order_by(col(Artifact.name))))

    return ArtifactPage(
        artifacts=[
            ArtifactRead(
                name=row.name,
                size=row.size_bytes,
                content_type=row.content_type,
                sha256=row.sha256,
                created_at=row.created_at,
            )
            for row in await platform.transact(read)
        ]
    )


@router.head("/{name:artifact}", include_in_schema=False, response_class=StreamingResponse)
@router.get("/{name:artifact}", response_class=StreamingResponse, responses=ARTIFACT)
async def download_artifact(
    run_id: str, name: str, request: Request, platform: PlatformDep, caller: ReadCaller
) -> Response:
    """Download an artifact; one `Range` of bytes may be asked for."""

    def read(session: Session) -> Artifact | None:
        get_run(session, caller, run_id)
        return session.get(Artifact, (run_id, name)) if "\0" not in name else None

    row = await platform.transact(read)
    if row is None:
        raise NotFound(
            f"Run {run_id} has no artifact {name!r}",
            code="artifact_not_found",
            hint=f"crewship runs artifacts {run_id}",
        )
    etag = f'"{row.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": content_disposition(name),
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
        # What a crew wrote is never this server's own page, however a browser comes to show it.
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    known = request.headers.get("if-none-match", "")
    if known.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in known.split(",")]:
        return Response(status_code=304, headers=headers)
    size = row.size_bytes
    span = None
    if request.headers.get("if-range", etag) == etag:
        span = _range(request.headers.get("range"), size)
    if span is not None and span[0] >= span[1]:
        return problem(
            request, 416, title="Range not satisfiable", code="invalid_range",
            detail=f"The artifact has {size} bytes", hint=f"ask for a range within 0-{size - 1}, or for all of it" if size else
            "ask for all of it", headers={"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    start, end = span or (0, size)
    headers["Content-Length"] = str(end - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if span is not None else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=row.content_type)
    chunks = await platform.with_store(lambda store: _open(store, row, start, end - start))
    return StreamingResponse(chunks, status, headers=headers, media_type=row.content_type)


def _open(store: ObjectStore, row: Artifact, offset: int, length: int) -> Iterator[bytes]:
    """The bytes, of which the first are here: what is wrong with the store shows before the response begins."""
    if length == 0:
        return iter(())
    try:
        chunks = store.open(row.key, offset, length)
        return chain([next(chunks, b"")], chunks)
    except ObjectMissing as error:
        raise NotFound(
            f"The object store does not have the bytes of {row.name!r}",
            code="artifact_not_found",
            hint="they were deleted with their project, or lost: crewship doctor checks the object store",
        ) from error


_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """The span ``[start, end)`` that is asked for; an empty one cannot be had, None is no range or one we leave alone."""
    match = _RANGE.fullmatch(header.strip()) if header is not None and len(header) < 60 else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    start = int(match[1])
    end = min(int(match[2]) + 1, size) if match[2] else size
    if match[2] and int(match[2]) < start:
        return None
    return start, end


def content_disposition(name: str) -> str:
    """``attachment`` with the last part of ``name``, in ASCII and as it is (RFC 6266)."""
    last = name.rstrip("/").rpartition("/")[2] or "artifact"
    plain = re.sub(r'[^\x20-\x7e]|["\\%]', "_", last)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(last.encode('utf-8', 'replace'), safe='')}"
