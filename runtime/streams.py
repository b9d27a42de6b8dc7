"""The crew's stdout and stderr: read while there is room for what they say, each piece a line of the log or several."""

import fcntl
import os
import sys

from .lines import PIECE_BYTES, LogStream
from .outbox import Outbox
from .poller import Poller

_BURST_SECONDS = 0.002
_BURST_BYTES = 16 << 10
_FIONREAD = 0x541B


class CrewStreams:
    """Both, by their file descriptors, as long as they are open.

    Attributes:
        limit_bytes: What they may write together; 0: no limit.
        is_over: There was more; nothing is taken any more, though all is read.
    """

    def __init__(
        self, named: "dict[int, str]", outbox: Outbox, poller: Poller, uncut: "tuple[bytes, ...]", limit_bytes: int
    ) -> None:
        self.is_over = False
        self._streams = {fd: LogStream(name, outbox, uncut) for fd, name in named.items()}
        self._poller = poller
        self.limit_bytes = limit_bytes
        self._bytes = 0
        self._muted: dict[int, float] = {}  # stream → not to be read before
        self._read_at: dict[int, float] = {}

    @property
    def is_open(self) -> bool:
        return bool(self._streams)

    def watch(self, mask: int) -> None:
        """Let what may be read now be reported as ``mask``."""
        for fd in self._streams:
            self._poller.watch(fd, 0 if fd in self._muted else mask)

    def dues(self) -> "list[float | None]":
        """When something is to be done, whatever comes."""
        return [*self._muted.values(), *(stream.due for stream in self._streams.values())]

    def unmute(self, now: float) -> None:
        for fd in [fd for fd, due in self._muted.items() if due <= now]:
            del self._muted[fd]

    def is_due(self, now: float) -> bool:
        """Whether a line has waited for its end long enough."""
        return any(stream.due is not None and stream.due <= now for stream in self._streams.values())

    def show_unfinished(self, now: float) -> None:
        """Take what has waited long enough as it is."""
        for stream in self._streams.values():
            if stream.due is not None and stream.due <= now:
                stream.show_unfinished(now)

    def read(self, fd: int, now: float) -> None:
        """A piece of what ``fd``, which is ready, has; at its end it is closed. One that is not open any more is none of ours."""
        if fd not in self._streams:
            return
        try:
            data = os.read(fd, PIECE_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._close(fd)
            return
        # Many small writes one after the other become one frame: let them gather while they come this fast.
        if len(data) < _BURST_BYTES and now - self._read_at.get(fd, 0.0) < _BURST_SECONDS * 2:
            self._muted[fd] = now + _BURST_SECONDS
        self._read_at[fd] = now
        self._take(fd, data, now)

    def drain(self, now: float) -> None:
        """Take what is in the pipes at this moment, and no more."""
        for fd in list(self._streams):
            waiting = int.from_bytes(fcntl.ioctl(fd, _FIONREAD, b"\0\0\0\0"), sys.byteorder)
            while waiting > 0:
                data = os.read(fd, min(waiting, PIECE_BYTES))
                waiting -= len(data)
                self._take(fd, data, now)

    def close(self) -> None:
        for fd in list(self._streams):
            self._close(fd)

    def _take(self, fd: int, data: bytes, now: float) -> None:
        if self.is_over:
            return
        self._streams[fd].feed(data, now)
        self._bytes += len(data)
        self.is_over = 0 < self.limit_bytes < self._bytes

    def _close(self, fd: int) -> None:
        self._streams[fd].close()
        self._poller.watch(fd, 0)
        self._muted.pop(fd, None)
        os.close(fd)
        del self._streams[fd]
