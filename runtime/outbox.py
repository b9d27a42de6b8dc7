"""Frames, from their making until the platform says that they are durable.

Held in memory up to a bound, then in a ring in an unlinked file, so that a reader that is slow, or gone for a while,
costs the container neither memory nor a line. When the ring is full too, ``full`` says so and the supervisor stops
reading the crew's pipes: the crew waits in ``write``. Adding itself never fails, so the supervisor's own few frames
(the result, the end) always find a place.

A frame's number, time and bytes are fixed when it is made. A replay sends the same bytes again.
"""

import os
import time

from .wire import dumps, quote

MEMORY_LIMIT_BYTES = 8 << 20
SPILL_LIMIT_BYTES = 64 << 20
FRAME_COST_BYTES = 200  # what the index of a held frame costs beside its bytes, measured
HELD_LIMIT = 100_000  # frames; keeps the index under 20 MB when a crew writes single lines and nobody acknowledges
_WRITE_BYTES = 256 << 10


class Ring:
    """Byte strings in one file of bounded size, freed in the order in which they were put."""

    def __init__(self, folders: list[bytes], limit_bytes: int) -> None:
        self._folders = folders
        self._limit = limit_bytes
        self._fd = -1
        self._head = 0
        self._spans: dict[int, int] = {}  # offset → length, in order
        self._broken = False

    def put(self, data: bytes) -> int | None:
        """Where ``data`` now is, or None when there is no room (or no disk) for it."""
        tail = next(iter(self._spans), None)
        if tail is None:
            self._head = 0
        start = self._head
        end = self._limit
        if tail is not None and tail >= start:
            end = tail
        elif len(data) > end - start:  # wraps to the start of the file
            start, end = 0, 0 if tail is None else tail
        if len(data) > end - start or self._broken:
            return None
        try:
            if self._fd < 0:
                self._fd = self._open()
            written = 0
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], start + written)
        except OSError:  # the disk is full: what is in the file stays there, nothing more goes in
            self._broken = True
            return None
        self._spans[start] = len(data)
        self._head = start + len(data)
        return start

    def get(self, offset: int) -> bytes:
        return os.pread(self._fd, self._spans[offset], offset)

    def free(self, offset: int) -> None:
        """Give back the place of the oldest string, which is at ``offset``."""
        del self._spans[offset]
        if not self._spans:
            self._broken = False

    def _open(self) -> int:
        for folder in self._folders:
            try:
                return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except OSError:  # gVisor and some volumes have no O_TMPFILE
                path = folder + b"/.crewship-spill"
                try:
                    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
                    os.unlink(path)
                    return fd
                except OSError:
                    continue
        raise OSError("no folder to spill to")


class Outbox:
    """The frames that are not acknowledged yet, and what goes to stdout next."""

    def __init__(
        self,
        nonce: str,
        spill_folders: list[bytes],
        memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
        spill_limit_bytes: int = SPILL_LIMIT_BYTES,
    ) -> None:
        self._key = quote(nonce)
        self._memory_limit = memory_limit_bytes
        self._memory = 0
        self._ring = Ring(spill_folders, spill_limit_bytes)
        self._held: dict[int, bytes | int] = {}  # n → the frame, or its offset in the ring
        self._last = 0
        self._acknowledged = 0
        self._next = 1  # the first frame not handed to stdout yet
        self._writing: list[memoryview] = []
        self._half_written = False  # whether the first of them is begun
        self._overflow = 0  # frames held in memory beyond every limit

    @property
    def last(self) -> int:
        """The number of the newest frame."""
        return self._last

    @property
    def acknowledged(self) -> int:
        return self._acknowledged

    @property
    def full(self) -> bool:
        return self._overflow > 0 or len(self._held) >= HELD_LIMIT

    @property
    def pending(self) -> bool:
        """Whether there is something to write to stdout."""
        return bool(self._writing) or self._next <= self._last

    def add(self, kind: str, fields: dict[str, object]) -> int:
        """Make a frame of ``fields``; its number."""
        body = dumps(fields)
        return self.add_body(kind, "," + body[1:] if len(body) > 2 else "}")

    def add_body(self, kind: str, body: str) -> int:
        """Make a frame whose fields are JSON text already: ``,"key":value...}``."""
        self._last = n = self._last + 1
        at = time.time_ns() // 1_000_000
        # A lone surrogate has no UTF-8: it becomes "?" rather than a line that no parser takes.
        frame = f'{{"n":{n},"k":{self._key},"at":{at},"t":"{kind}"{body}\n'.encode("utf-8", "replace")
        if self._memory + len(frame) + FRAME_COST_BYTES > self._memory_limit:
            offset = self._ring.put(frame)
            if offset is not None:
                self._held[n] = offset
                return n
            self._overflow += 1
        self._held[n] = frame
        self._memory += len(frame) + FRAME_COST_BYTES
        return n

    def acknowledge(self, n: int) -> None:
        """Forget every frame up to and with ``n``; a number that no frame has yet means nothing."""
        if n > self._last:
            return
        for number in range(self._acknowledged + 1, n + 1):
            held = self._held.pop(number)
            if isinstance(held, int):
                self._ring.free(held)
            else:
                self._memory -= len(held) + FRAME_COST_BYTES
        self._acknowledged = max(self._acknowledged, n)
        self._next = max(self._next, self._acknowledged + 1)
        if self._memory < self._memory_limit:
            self._overflow = 0

    def replay(self, n: int) -> None:
        """Send every held frame after ``n`` again; a frame that is half written is finished first."""
        self._writing = self._writing[:1] if self._half_written else []
        self._next = min(max(n, self._acknowledged) + 1, self._last + 1)

    def write(self, fd: int) -> None:
        """Write to ``fd``, which does not block, what it takes now.

        Raises:
            OSError: ``fd`` is broken.
        """
        while self.pending:
            if not self._writing:
                size = 0
                while self._next <= self._last and size < _WRITE_BYTES and len(self._writing) < 64:
                    held = self._held[self._next]
                    frame = self._ring.get(held) if isinstance(held, int) else held
                    self._writing.append(memoryview(frame))
                    size += len(frame)
                    self._next += 1
            try:
                written = os.writev(fd, self._writing)
            except BlockingIOError:
                return
            while written:
                first = self._writing[0]
                if written >= len(first):
                    written -= len(first)
                    del self._writing[0]
                    self._half_written = False
                else:
                    self._half_written = True
                    self._writing[0] = first[written:]
                    written = 0
