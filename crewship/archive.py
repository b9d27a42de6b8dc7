"""A closed log in the object store: one object of zstd NDJSON and its index.

The object is the concatenation of zstd frames, a frame an entry of the live log (segments are taken as they are, so a
million events are archived without being compressed again), and so any zstd tool reads it whole. The index says which
events are in which bytes, so reading on from the middle costs one range read. Small neighbours in line are joined to frames
of about 256 KiB, so that a log of many tiny batches does not become many tiny frames.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import orjson
import zstandard

from crewship.contracts import Entry, Segment
from crewship.events import seek
from crewship.objects import archive_index_key, archive_key, trimmed_key
from crewship.storage import ObjectMissing, ObjectStore, read
from crewship.streams import as_file

_FRAME_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """Events ``first`` to ``last`` are in ``length`` bytes from ``offset``."""

    first: int
    last: int
    offset: int
    length: int


class SegmentCorrupt(Exception):
    """A segment's bytes are not those that were written."""


@dataclass(frozen=True)
class Archive:
    """A closed log, opened for reading."""

    store: ObjectStore
    workflow_id: str
    entries: list[ArchiveEntry]
    key: str
    """Object that holds the frames."""

    @classmethod
    def open(cls, store: ObjectStore, workflow_id: str) -> "Archive":
        """Read the index.

        Raises:
            ObjectMissing: the log is not archived (yet, or any more).
        """
        index = orjson.loads(read(store, archive_index_key(workflow_id)))
        key = trimmed_key(workflow_id) if index.get("trimmed") else archive_key(workflow_id)
        return cls(store, workflow_id, [ArchiveEntry(*row) for row in index["frames"]], key)

    @property
    def last_seq(self) -> int:
        return self.entries[-1].last if self.entries else 0

    def read(self, entry: ArchiveEntry) -> bytes:
        """NDJSON lines of ``entry``."""
        return decompress(self.read_frame(entry))

    def read_frame(self, entry: ArchiveEntry) -> bytes:
        """``entry`` as it is stored: one zstd frame."""
        return read(self.store, self.key, entry.offset, entry.length)


def compress(lines: bytes) -> bytes:
    """One zstd frame with its content size; level 1: 400 MB/s here, and logs shrink to a tenth all the same."""
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(lines)


def decompress(frame: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(frame)


def read_segment(store: ObjectStore, segment: Segment) -> bytes:
    """NDJSON lines of a live segment, its digest checked.

    Raises:
        ObjectMissing: it is gone (the log was archived meanwhile).
        SegmentCorrupt: its bytes have changed.
    """
    return decompress(read_segment_frame(store, segment))


def read_segment_frame(store: ObjectStore, segment: Segment) -> bytes:
    """A live segment as it is stored, one zstd frame; raises what :func:`read_segment` does."""
    frame = read(store, segment.key)
    if hashlib.sha256(frame).hexdigest() != segment.sha256:
        raise SegmentCorrupt(segment.key)
    return frame


def write(store: ObjectStore, workflow_id: str, entries: list[Entry]) -> None:
    """Archive a whole log. Idempotent: the same entries give the same objects; the index is written last."""
    rows: list[list[int]] = []
    store.put(archive_key(workflow_id), as_file(_frames(store, entries, rows)))
    store.put(archive_index_key(workflow_id), orjson.dumps({"version": 1, "frames": rows}))


def is_archived(store: ObjectStore, workflow_id: str) -> bool:
    """Whether a whole archive is there (its index is written last)."""
    try:
        store.stat(archive_index_key(workflow_id))
    except ObjectMissing:
        return False
    return True


def trim(store: ObjectStore, workflow_id: str) -> None:
    """Keep the terminal event alone: what a log's retention leaves. Idempotent.

    The event keeps its seq and its hash, so what was read before can still be checked against it.

    Raises:
        ObjectMissing: the log is not archived.
    """
    kept = Archive.open(store, workflow_id)
    last = kept.entries[-1]
    if len(kept.entries) == 1 and last.first == last.last:
        return
    frame = compress(seek(kept.read(last), last.last - 1))
    # A new object, then the index that points at it, then the old one: killed between any two, the log is whole or trimmed.
    store.put(trimmed_key(workflow_id), frame)
    store.put(
        archive_index_key(workflow_id),
        orjson.dumps({"version": 1, "trimmed": True, "frames": [[last.last, last.last, 0, len(frame)]]}),
    )
    store.delete(archive_key(workflow_id))


def _frames(store: ObjectStore, entries: list[Entry], rows: list[list[int]]) -> Iterator[bytes]:
    """The archive's frames in order; a row of the index for each is added to ``rows`` before it is given."""
    offset = 0
    pending: list[Entry] = []
    size = 0

    def joined() -> Iterator[bytes]:
        nonlocal offset, size
        if pending:
            frame = compress("".join(entry.lines or "" for entry in pending).encode())
            rows.append([pending[0].first, pending[-1].last, offset, len(frame)])
            offset += len(frame)
            pending.clear()
            size = 0
            yield frame

    for entry in entries:
        if entry.segment is None:
            pending.append(entry)
            size += len(entry.lines or "")
            if size >= _FRAME_BYTES:
                yield from joined()
        else:
            yield from joined()
            frame = read_segment_frame(store, entry.segment)
            rows.append([entry.first, entry.last, offset, len(frame)])
            offset += len(frame)
            yield frame
    yield from joined()
