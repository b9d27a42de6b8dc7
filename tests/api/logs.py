"""A log that a test writes, and a tail that it holds in its hand."""

import hashlib
from collections.abc import Callable

import orjson

from crewship import archive
from crewship.clock import from_ms, rfc3339
from crewship.contracts import Batch, Segment
from crewship.events import Draft, render
from crewship.folder_storage import FolderStore
from crewship.log import EventLog
from crewship.objects import segment_key


class MemoryTail:
    """Delivers at once, to whoever watches; ``lose`` makes it lose everything."""

    def __init__(self) -> None:
        self.watched: set[str] = set()
        self.lose = False
        self._deliver: Callable[[str, bytes], None] | None = None

    async def start(self, deliver: Callable[[str, bytes], None]) -> None:
        self._deliver = deliver

    async def watch(self, topic: str) -> None:
        self.watched.add(topic)

    async def unwatch(self, topic: str) -> None:
        self.watched.discard(topic)

    async def stop(self) -> None:
        self._deliver = None

    def send(self, topic: str, message: bytes) -> None:
        if topic in self.watched and not self.lose and self._deliver is not None:
            self._deliver(topic, message)


class ScriptedLog:
    """A workflow's log and its writer in one."""

    def __init__(self, workflow_id: str, store: FolderStore, tail: MemoryTail) -> None:
        self.workflow_id, self.store, self.tail = workflow_id, store, tail
        self.log = EventLog()
        self.bytes = b""
        """All lines, as every reader must get them."""

    def write(self, *messages: str, type: str = "log", segment: bool = False, hint: bool = True) -> None:
        """Append an event for each message, as one batch."""
        first = self.log.next_seq
        drafts = [
            Draft(rfc3339(from_ms(1_767_225_600_000 + first + index)), type, {"message": message})
            for index, message in enumerate(messages)
        ]
        lines, last, digest = render(drafts, first, self.log.hash)
        self.bytes += lines
        pointer = None
        if segment:
            frame = archive.compress(lines)
            pointer = Segment(
                key=segment_key(self.workflow_id, first, 1),
                sha256=hashlib.sha256(frame).hexdigest(),
                size_bytes=self.store.put(segment_key(self.workflow_id, first, 1), frame),
            )
        batch = Batch(
            source="container/1", epoch=1, n=last, first=first, last=last, hash=digest,
            lines=None if segment else lines.decode(), segment=pointer,
        )  # fmt: skip
        assert self.log.append(batch)
        if hint:
            self.tail.send(self.workflow_id, orjson.dumps({"batch": batch.model_dump()}))

    def archive(self) -> int:
        """Append the terminal event and archive all; its seq."""
        kind = "run.completed" if self.workflow_id.startswith("run-") else "deployment.ready"
        self.log.finish(Draft("2026-01-01T00:01:00.000Z", kind, {"duration_ms": 60_000}))
        assert self.log.terminal is not None
        self.bytes += (self.log.terminal.lines or "").encode()
        archive.write(self.store, self.workflow_id, [*self.log.entries, self.log.terminal])
        for info in list(self.store.list(f"{self._prefix()}segments/")):
            self.store.delete(info.key)
        return self.log.terminal.last

    def _prefix(self) -> str:
        return segment_key(self.workflow_id, 0, 0).partition("segments/")[0]
