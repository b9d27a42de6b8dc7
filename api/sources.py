"""Sources on their way in: sent whole, in parts, or known by their digest from an earlier deployment of the project.

Each is checked before it is kept under its digest, and what is refused leaves nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from sqlmodel import Session, col, select

from api.state import Platform
from crewship import limits, source, uploads
from crewship.config import load
from crewship.errors import Conflict, CrewshipError, InvalidConfig, NotFound, Unavailable
from crewship.models import Deployment, Upload
from crewship.objects import source_key
from crewship.storage import ObjectMissing, ObjectStore
from crewship.streams import as_file
from crewship.uploads import Parts

HOW_TO_SEND = "send the project as multipart/form-data with a file in the field source (.tar.gz); crewship deploy does"


@dataclass(frozen=True, slots=True)
class Source:
    """One that was checked and is in the object store."""

    sha256: str
    config: dict[str, Any]
    warnings: tuple[str, ...]
    parts: Parts | None = None
    """That it was made of, for :func:`done`; None: of one that did not come in parts."""


def take(platform: Platform, file: BinaryIO, name: str | None) -> Source:
    """Check a source that was sent whole, then keep it. In a thread; the file is on disk if it is large.

    Args:
        name: Which ``[deployments.<name>]`` is meant.
    """
    file.seek(0)
    found = _checked(platform, file, name)
    file.seek(0)
    platform.store.put(source_key(found.sha256), file)
    return found


async def find(platform: Platform, project: str, sha256: str, name: str | None) -> Source:
    """The source that the project was deployed from before, or whose parts it has: a digest that is known is no right to the
    source of another project.

    Raises:
        NotFound: there is none (``source_unknown``).
        Conflict: parts of it are missing (``upload_incomplete``).
    """

    def look(session: Session) -> tuple[bool, Parts | None]:
        known = select(Deployment.id).where(
            Deployment.project == project,
            Deployment.source_sha256 == sha256,
            col(Deployment.source_removed_at).is_(None),
        )
        row = session.get(Upload, (project, sha256))
        return session.exec(known.limit(1)).first() is not None, None if row is None else Parts.of(row)

    is_known, parts = await platform.transact(look)
    found = None
    if is_known:
        found = await platform.with_store(lambda store: _kept(platform, store, sha256, name))
    if found is None and parts is not None:
        try:
            found = await platform.with_store(lambda store: _assembled(platform, store, parts, name))
        except CrewshipError as error:
            if not isinstance(error, Unavailable | Conflict):  # it would be refused again
                await drop(platform, parts)
            raise
    if found is None:
        raise NotFound(
            f"The project has no source with the digest {sha256[:12]}…", code="source_unknown", hint=HOW_TO_SEND
        )
    return found


async def done(platform: Platform, found: Source) -> None:
    """The source is in use, or was recognized: parts that it came in have no use any more. What cannot be removed now goes with
    the next collection."""
    if found.parts is not None:
        with suppress(Unavailable):
            await drop(platform, found.parts)


async def drop(platform: Platform, parts: Parts) -> None:
    """An upload that is over: its row, then its parts."""
    await platform.transact(lambda session: uploads.forget(session, parts))
    await platform.with_store(parts.drop)


def _checked(platform: Platform, file: BinaryIO, name: str | None) -> Source:
    summary = source.check(file, source.Limits.of(platform.settings.max_source_bytes))
    config = load(summary.config, name)
    limits.check(config, platform.settings)
    wanted = config.build.requirements
    if wanted is not None and wanted not in summary.names:
        raise InvalidConfig(
            f"[build] requirements: there is no {wanted} in the upload",
            hint="The path is relative to the project's root; .gitignore and [build] exclude may leave the file out.",
        )
    return Source(summary.sha256, config.model_dump(mode="json"), summary.warnings)


def _kept(platform: Platform, store: ObjectStore, sha256: str, name: str | None) -> Source | None:
    with suppress(ObjectMissing):
        found = _checked(platform, as_file(store.open(source_key(sha256))), name)
        return found if found.sha256 == sha256 else None
    return None


def _assembled(platform: Platform, store: ObjectStore, parts: Parts, name: str | None) -> Source:
    """Check the archive that the parts are, then keep it. Read twice, and never held: the second reading stores exactly what has
    the digest, whatever came in between.

    Raises:
        Conflict: parts are missing.
        InvalidSource: they are another archive (``digest_mismatch``).
    """
    if missing := parts.missing(store):
        raise _incomplete(parts, len(missing))
    try:
        chunks = uploads.digested(parts.read(store), parts.sha256)
        found = _checking(chunks, lambda: _checked(platform, as_file(chunks), name))
        store.put(source_key(parts.sha256), as_file(uploads.digested(parts.read(store), parts.sha256)))
    except ObjectMissing:
        raise _incomplete(parts, 1) from None
    return Source(found.sha256, found.config, found.warnings, parts)


def _checking(chunks: Iterator[bytes], check: Callable[[], Source]) -> Source:
    """What ``check`` says; a refusal of bytes that are not the announced ones says that instead."""
    try:
        return check()
    except CrewshipError:
        for _ in chunks:
            pass
        raise


def _incomplete(parts: Parts, missing: int) -> Conflict:
    return Conflict(
        f"{missing} of {parts.count} parts of the source are missing",
        code="upload_incomplete",
        hint="send them, then ask again; POST to /uploads says which; crewship deploy does all of it",
    )
