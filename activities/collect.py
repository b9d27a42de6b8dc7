"""Takes a run's files out of its container into the object store.

Streamed, never whole in memory. A file is named by its path under ``/app/artifacts``; its object by a digest of that name, so a
second collection writes the same objects. The rows are written once, all together: of two collections at the same time the
first to end counts, and the other one, which may have seen the container being removed, changes nothing.
"""

import hashlib
import logging
import mimetypes
from collections.abc import Callable, Iterator

from sqlalchemy import Engine as Database
from sqlalchemy import update
from sqlmodel import col, select

from activities.bridge import TemporalBridge
from activities.log_writer import LogWriter
from crewship.archive import read_segment
from crewship.clock import now, rfc3339
from crewship.contracts import EventsQuery, run_workflow_id
from crewship.db import session as transaction
from crewship.engine import Engine
from crewship.events import Draft, parse
from crewship.models import Artifact, Run
from crewship.objects import artifact_key
from crewship.storage import ObjectStore
from crewship.streams import as_file
from crewship.tail import TailPublisher

logger = logging.getLogger(__name__)

ARTIFACTS_DIR = "/app/artifacts"
_MAX_FILES = 10_000

_TYPES = {
    ".md": "text/markdown",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
}
"""Endings that the standard library's table lacks on some systems."""


def content_type(name: str) -> str:
    """By the name's ending; ``application/octet-stream`` when that says nothing."""
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    return _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def collect_artifacts(
    run_id: str,
    container: str,
    *,
    engine: Engine,
    store: ObjectStore,
    database: Database,
    limit_bytes: int,
    announce: Callable[[list[Artifact]], None],
) -> None:
    """Store every file under ``/app/artifacts`` and record it, unless that was done before.

    Args:
        announce: Told all that were collected; writes the events that the supervisor could not write.
    """
    with transaction(database) as session:
        done = session.exec(select(Run.collected).where(Run.id == run_id)).first()
    if done is None:
        _collect(run_id, container, engine=engine, store=store, database=database, limit_bytes=limit_bytes)
    with transaction(database) as session:
        collected = session.exec(select(Artifact).where(Artifact.run_id == run_id).order_by(Artifact.name)).all()
    announce(list(collected))


def _collect(
    run_id: str, container: str, *, engine: Engine, store: ObjectStore, database: Database, limit_bytes: int
) -> None:
    artifacts: list[Artifact] = []
    total, found = 0, "all"
    for file in engine.archive(container, ARTIFACTS_DIR):
        total += file.size_bytes
        if total > limit_bytes or len(artifacts) >= _MAX_FILES:
            found = "some"
            break
        digest = hashlib.sha256()
        key = artifact_key(run_id, file.name)
        size = store.put(key, as_file(_digested(file.chunks, digest.update)))
        artifacts.append(
            Artifact(
                run_id=run_id,
                name=file.name,
                size_bytes=size,
                content_type=content_type(file.name),
                sha256=digest.hexdigest(),
                key=key,
            )
        )
    with transaction(database) as session:
        first = session.exec(
            update(Run)
            .where(col(Run.id) == run_id, col(Run.collected).is_(None))
            .values(collected=found, artifact_count=len(artifacts))
        )
        if first.rowcount:
            session.add_all(artifacts)


def _digested(chunks: Iterator[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for chunk in chunks:
        update(chunk)
        yield chunk


class Announcer:
    """Writes the ``artifact`` events of a run whose supervisor was killed before its last look.

    With an ``end`` frame in the log there is nothing to do: the supervisor announced all before it.
    """

    def __init__(
        self, bridge: TemporalBridge, store: ObjectStore, tail: TailPublisher, run_id: str, epoch: int
    ) -> None:
        self._bridge, self._store, self._tail, self._epoch = bridge, store, tail, epoch
        self._workflow_id = run_workflow_id(run_id)

    def __call__(self, artifacts: list[Artifact]) -> None:
        if not artifacts:
            return
        head = self._bridge.head(self._workflow_id)
        if head.end is not None:
            return
        self._bridge.signal(self._workflow_id, "fence", self._epoch)
        head = self._bridge.head(self._workflow_id)
        announced = self._announced()
        at = rfc3339(now())
        writer = LogWriter(
            self._bridge,
            self._store,
            self._tail,
            workflow_id=self._workflow_id,
            source="artifacts",
            epoch=self._epoch,
            head=head,
        )
        writer.write(
            [
                Draft(at, "artifact", {"name": a.name, "size": a.size_bytes, "content_type": a.content_type})
                for a in artifacts
                if (a.name, a.size_bytes) not in announced
            ],
            urgent=True,
        )
        writer.close()

    def _announced(self) -> set[tuple[str, int]]:
        announced: set[tuple[str, int]] = set()
        after = 0
        while True:
            page = self._bridge.events(self._workflow_id, EventsQuery(after=after))
            for entry in page.entries:
                lines = (
                    (entry.lines or "").encode() if entry.segment is None else read_segment(self._store, entry.segment)
                )
                if b'"type":"artifact"' in lines:
                    announced |= {(e.data["name"], e.data["size"]) for e in parse(lines) if e.type == "artifact"}
                after = entry.last
            if not page.more:
                return announced
