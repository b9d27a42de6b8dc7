"""The tail as a unix datagram socket, for a platform on one machine.

The API's process binds the path; any number of publishers send to it, one datagram (topic, a zero byte, the message) a hint. A
publisher looks the path up for each, so either side may come, go and come back. The kernel drops nothing that it took; it
refuses when the subscriber's queue is full or nobody is there, and then the hint is gone, which costs a reader some latency.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 64 * 1024
_MAX_PATH_BYTES: Final = 100
"""Of a socket's address: Linux takes 107, macOS 103."""
_QUEUE_BYTES: Final = 4 * 1024 * 1024


class SocketPublisher:
    """A ``TailPublisher`` that sends to the socket at ``path``; may be used by any number of threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        # What was sent and not read yet counts here, at the sender; the kernel cuts it to its own limit.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE_BYTES)

    def publish(self, topic: str, message: bytes) -> None:
        if len(message) > MAX_MESSAGE_BYTES:
            return
        # Nobody there, its queue full, or this publisher closed: the hint is lost, as a hint may be.
        with contextlib.suppress(OSError), _address(self._path) as address:
            self._socket.sendto(b"%b\0%b" % (topic.encode(), message), address)

    def close(self) -> None:
        self._socket.close()


class SocketSubscriber:
    """A ``TailSubscriber`` that owns the socket at ``path``; one that a crash has left there is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._topics: set[str] = set()
        self._socket: socket.socket | None = None
        self._inode: int | None = None

    async def start(self, deliver: Callable[[str, bytes], None]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            receiver.setblocking(False)
            with _address(self._path) as address:
                receiver.bind(address)
            self._path.chmod(0o600)
        except BaseException:
            receiver.close()
            raise
        self._inode = self._path.stat().st_ino
        self._socket = receiver
        asyncio.get_running_loop().add_reader(receiver, self._receive, receiver, deliver)

    async def watch(self, topic: str) -> None:
        self._topics.add(topic)

    async def unwatch(self, topic: str) -> None:
        self._topics.discard(topic)

    async def stop(self) -> None:
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        with contextlib.suppress(FileNotFoundError):
            # Not that of a successor that is here already.
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _receive(self, receiver: socket.socket, deliver: Callable[[str, bytes], None]) -> None:
        # All that is there: the kernel's queue may be as short as ten. Bounded, so that the loop gets its turn under a flood.
        for _ in range(1000):
            try:
                topic, _, message = receiver.recv(MAX_MESSAGE_BYTES + 1024).partition(b"\0")
            except OSError:
                return
            name = topic.decode(errors="replace")
            if name in self._topics:
                try:
                    deliver(name, message)
                except Exception:
                    _log.exception("a hint of %s was not taken", name)


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """``path`` as a socket's address. These are short; a longer path is named by way of its folder's descriptor (Linux only)."""
    if len(os.fsencode(path)) <= _MAX_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
