"""A unix socket that is read line by line in a thread of its own. Who is at the other end may be started later, or again."""

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from crewship.netguard.messages import SILENCE_SECONDS

_AGAIN_SECONDS = 0.5


class Line:
    """Connects, reads, and connects again.

    Args:
        path: The socket.
        name: Of the thread.
        take: Called (thread) with each line.
        lost: Called (thread) when there is nobody, or was silent for too long; each half second while there is not.
        found: Called (thread) with each new connection, before anything is read.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        take: Callable[[bytes], None],
        lost: Callable[[], None],
        found: Callable[[socket.socket], None] = lambda peer: None,
    ) -> None:
        self._path, self._take, self._lost, self._found = path, take, lost, found
        self._closed = threading.Event()
        self._peer: socket.socket | None = None
        self._thread = threading.Thread(target=self._listen, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self.hang_up()
        self._thread.join()

    def hang_up(self) -> None:
        """Have it connect anew."""
        peer = self._peer
        with contextlib.suppress(OSError):
            if peer is not None:
                peer.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
                self._peer = peer
                peer.settimeout(SILENCE_SECONDS)
                peer.connect(str(self._path))
                self._found(peer)
                with peer.makefile("rb") as lines:
                    for line in lines:
                        self._take(line)
            self._peer = None
            self._lost()
            self._closed.wait(_AGAIN_SECONDS)
