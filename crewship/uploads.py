"""Sources that come in parts, so that one that was cut goes on where it was.

A part is an object of its own, all of one size but the last: a put of it is atomic and may be repeated, what is there is what
the store lists, and any process can take the next one. Parts belong to a project and a digest that was announced. Nothing sees
them before they are read as one archive, whose digest must be that one; then it is stored as any source is and the parts go.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, delete, select

from crewship.clock import now
from crewship.errors import InvalidSource
from crewship.models import Upload
from crewship.objects import part_key, upload_prefix
from crewship.storage import ObjectStore

PART_BYTES: Final = 4 * 1024 * 1024
"""What is sent again at most when a connection breaks; one is held in memory while it comes in."""
KEPT: Final = timedelta(days=1)
"""How long an upload waits for its next part."""
MAX_OPEN: Final = 16
"""Uploads of a project that wait for parts; a further one takes the place of the one that has waited longest."""


@dataclass(frozen=True, slots=True)
class Parts:
    """How a source is cut."""

    project: str
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, row: Upload) -> "Parts":
        return cls(row.project, row.source_sha256, row.size_bytes)

    @property
    def count(self) -> int:
        return -(-self.size_bytes // PART_BYTES)

    def size_of(self, number: int) -> int:
        """Bytes of a part, which counts from 0."""
        return min(PART_BYTES, self.size_bytes - number * PART_BYTES)

    def key(self, number: int) -> str:
        return part_key(self.project, self.sha256, number)

    def missing(self, store: ObjectStore) -> list[int]:
        """Parts that are not there, in order."""
        there = {found.key: found.size_bytes for found in store.list(upload_prefix(self.project, self.sha256))}
        return [number for number in range(self.count) if there.get(self.key(number)) != self.size_of(number)]

    def read(self, store: ObjectStore) -> Iterator[bytes]:
        """The whole archive.

        Raises:
            ObjectMissing: a part is not there.
        """
        for number in range(self.count):
            yield from store.open(self.key(number))

    def drop(self, store: ObjectStore) -> None:
        """Remove the parts; idempotent."""
        store.delete_prefix(upload_prefix(self.project, self.sha256))


def digested(chunks: Iterator[bytes], sha256: str) -> Iterator[bytes]:
    """``chunks``, whose reader fails at their end unless that is their digest; so a put of them stores those or nothing.

    Raises:
        InvalidSource: it is another one (``digest_mismatch``).
    """
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != sha256:
        raise InvalidSource(
            f"What was uploaded has another digest than {sha256[:12]}…, which was announced",
            code="digest_mismatch",
            hint="upload it again; the parts that came were dropped",
        )


def begin(session: Session, parts: Parts, by: str) -> tuple[Upload, bool, list[Parts]]:
    """The upload's row, whether it is new, and the uploads that had to make room, whose rows are gone and parts are not."""
    row = session.get(Upload, (parts.project, parts.sha256))
    if row is not None:
        row.touched_at = now()
        session.add(row)
        return row, False, []
    others = select(Upload).where(Upload.project == parts.project).order_by(col(Upload.touched_at).desc())
    crowded = session.exec(others.offset(MAX_OPEN - 1)).all()
    dropped = [Parts.of(other) for other in crowded]
    for other in crowded:
        session.delete(other)
    row = Upload(project=parts.project, source_sha256=parts.sha256, size_bytes=parts.size_bytes, created_by=by)
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    made = session.execute(  # somebody else may begin the same one now
        insert(Upload).values(**row.model_dump()).on_conflict_do_nothing().returning(col(Upload.project))
    )
    is_new = made.first() is not None
    return session.get_one(Upload, (parts.project, parts.sha256)), is_new, dropped


def forget(session: Session, parts: Parts, *, untouched_since: datetime | None = None) -> bool:
    """Remove the row, or only if nothing came since then; whether there is none now."""
    mine = (col(Upload.project) == parts.project) & (col(Upload.source_sha256) == parts.sha256)
    gone = mine if untouched_since is None else mine & (col(Upload.touched_at) < untouched_since)
    session.exec(delete(Upload).where(gone))
    return session.exec(select(Upload.project).where(mine)).first() is None
