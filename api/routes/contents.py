"""What a deployment consists of: its lock, its bill of materials, and what differs between two."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Response
from sqlmodel import Session

from api.auth import Caller, ReadCaller
from api.lookups import get_deployment
from api.routes.activations import EnvNames
from api.state import Platform, PlatformDep
from api.wire import Read
from crewship import contents, environment
from crewship.contents import Build, Changes, compare, flat, packages
from crewship.errors import Conflict
from crewship.models import Deployment
from crewship.source import SourceFile

router = APIRouter(prefix="/deployments/{deployment_id}", tags=["deployments"])

_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}, "description": "A requirement a line"}}
_SBOM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/vnd.cyclonedx+json": {}}, "description": "CycloneDX 1.6"}
}


class FileRead(Read):
    name: str
    size_bytes: int
    sha256: str
    executable: bool


class FileChange(Read):
    name: str
    before: FileRead
    after: FileRead


class FileChanges(Read):
    added: list[FileRead]
    removed: list[FileRead]
    changed: list[FileChange]


class PinRead(Read):
    name: str
    version: str
    """Or the URL that it came from."""


class PinChange(Read):
    name: str
    before: str
    after: str


class PinChanges(Read):
    added: list[PinRead]
    removed: list[PinRead]
    changed: list[PinChange]


class ConfigChange(Read):
    key: str
    """Dotted, such as ``run.memory``; ``base_image`` and ``python`` are what it was really built on."""
    before: Any
    after: Any


class EnvDiff(Read):
    """Versions that the two ran with last, or run with; null: not known. Names only."""

    before: int | None
    after: int | None
    changes: EnvNames


class DiffRead(Read):
    before: str
    after: str
    same: bool
    """Nothing differs that is in the deployments themselves; env vars are not."""
    files: FileChanges
    dependencies: PinChanges | None
    """Null when one of them was not built."""
    system_packages: PinChanges | None
    config: list[ConfigChange]
    env: EnvDiff | None
    """Null for deployments of two projects."""


@router.get("/lock", response_class=Response, responses=_TEXT)
async def get_lock(deployment_id: str, platform: PlatformDep, caller: ReadCaller) -> Response:
    """Get the Python packages that are in a deployment, a requirement a line."""
    _, build = await _built(platform, caller, deployment_id)
    return Response(build.lock, media_type="text/plain; charset=utf-8")


@router.get("/sbom", response_class=Response, responses=_SBOM)
async def get_sbom(deployment_id: str, platform: PlatformDep, caller: ReadCaller) -> Response:
    """Get a deployment's bill of materials (CycloneDX JSON): base image, system packages, Python packages."""
    from crewship import sbom  # takes 150 ms to import, and is seldom asked for
    from crewship.clock import utc

    row, build = await _built(platform, caller, deployment_id)
    document = sbom.document(
        deployment_id=row.id,
        project=row.project,
        source_sha256=row.source_sha256,
        created_at=utc(row.created_at),
        image=row.image,
        build=build,
    )
    return Response(document, media_type=sbom.MEDIA_TYPE)


@router.get("/diff/{other_id}")
async def get_diff(deployment_id: str, other_id: str, platform: PlatformDep, caller: ReadCaller) -> DiffRead:
    """Compare two deployments: the other one with this one before it."""

    def rows(session: Session) -> tuple[Deployment, Deployment, EnvDiff | None]:
        one, other = (get_deployment(session, caller, each) for each in (deployment_id, other_id))
        return one, other, _env(session, platform, one, other) if one.project == other.project else None

    before, after, env = await platform.transact(rows)
    (old, was_built), (new, is_built) = [await _contents(platform, row) for row in (before, after)]
    files = compare(old, new)
    config = compare(_config(before, was_built), _config(after, is_built))
    dependencies = system = None
    if was_built is not None and is_built is not None:
        dependencies = _pins(compare(_python_pins(was_built), _python_pins(is_built)))
        system = _pins(compare(_system_pins(was_built), _system_pins(is_built)))
    changes = [
        *(ConfigChange(key=key, before=None, after=value) for key, value in config.added.items()),
        *(ConfigChange(key=key, before=value, after=None) for key, value in config.removed.items()),
        *(ConfigChange(key=key, before=was, after=now) for key, (was, now) in config.changed.items()),
    ]
    return DiffRead(
        before=before.id,
        after=after.id,
        same=not (changes or files or _differ(dependencies) or _differ(system)),
        files=FileChanges(
            added=[_file(name, file) for name, file in files.added.items()],
            removed=[_file(name, file) for name, file in files.removed.items()],
            changed=[
                FileChange(name=name, before=_file(name, was), after=_file(name, now))
                for name, (was, now) in files.changed.items()
            ],
        ),
        dependencies=dependencies,
        system_packages=system,
        config=sorted(changes, key=lambda change: change.key),
        env=env,
    )


async def _built(platform: Platform, caller: Caller, deployment_id: str) -> tuple[Deployment, Build]:
    """Raises ``Conflict`` when it was not built, or before builds were kept."""
    row = await platform.transact(lambda session: get_deployment(session, caller, deployment_id))
    build = await platform.with_store(lambda store: contents.read_build(store, deployment_id))
    if build is None:
        raise _not_kept(row, "packages")
    return row, build


async def _contents(platform: Platform, row: Deployment) -> tuple[Mapping[str, SourceFile], Build | None]:
    files, build = await platform.with_store(
        lambda store: (contents.read_files(store, row.id), contents.read_build(store, row.id))
    )
    if files is None:
        raise _not_kept(row, "files")
    return files, build


def _not_kept(row: Deployment, what: str) -> Conflict:
    if row.status in ("pending", "building"):
        return Conflict(
            f"Deployment {row.id} is being built",
            code="deployment_not_ready",
            hint=f"crewship deployments show {row.id} says when it is done",
        )
    if row.status == "failed":
        return Conflict(
            f"The build of {row.id} failed before there were {what}",
            code="deployment_not_ready",
            hint=f"crewship deployments show {row.id} says why",
        )
    return Conflict(
        f"The {what} of {row.id} are not known: it was made by a version that did not keep them",
        code="contents_not_kept",
        hint="deploy that version again: crewship deploy --force",
    )


def _env(session: Session, platform: Platform, before: Deployment, after: Deployment) -> EnvDiff:
    old, new = (environment.version_of(session, row) for row in (before, after))
    found = environment.EnvDifference()
    if old is not None and new is not None and old != new:
        found = environment.difference(session, before.project, old, new, platform.sealer.open)
    names = EnvNames(added=list(found.added), removed=list(found.removed), changed=list(found.changed))
    return EnvDiff(before=old, after=new, changes=names)


def _config(row: Deployment, build: Build | None) -> dict[str, Any]:
    config = flat(row.config)
    return config | ({"base_image": build.base_image, "python": build.python} if build is not None else {})


def _python_pins(build: Build) -> dict[str, str]:
    return {name: package.pin for name, package in packages(build.lock).items()}


def _system_pins(build: Build) -> dict[str, str]:
    return {f"{package.name}:{package.architecture}": package.version for package in build.system.packages}


def _pins(changes: Changes) -> PinChanges:
    return PinChanges(
        added=[PinRead(name=name, version=version) for name, version in changes.added.items()],
        removed=[PinRead(name=name, version=version) for name, version in changes.removed.items()],
        changed=[PinChange(name=name, before=was, after=now) for name, (was, now) in changes.changed.items()],
    )


def _differ(changes: PinChanges | None) -> bool:
    return changes is not None and bool(changes.added or changes.removed or changes.changed)


def _file(name: str, file: SourceFile) -> FileRead:
    return FileRead(name=name, size_bytes=file.size_bytes, sha256=file.sha256, executable=file.is_executable)
