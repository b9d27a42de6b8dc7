"""The crew's end of the socket to the supervisor: JSON lines both ways.

Any thread may send. The crew's streams are flushed first, and a sender waits until the supervisor has drained these
streams and taken the message (0.1 ms): so a line that was printed before an event comes before it in the log, and one that
was printed after it comes after. A send that a signal's exception cuts short leaves its rest to the next one: a message is
whole or missing.
"""

import os
import sys
from _thread import RLock

from .wire import Lines, dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_COMMAND_LIMIT_BYTES = 64 << 20


class Channel:
    """A connected stream socket and the pipe on which its messages are answered, given by their fds."""

    def __init__(self, fd: int, taken_fd: int) -> None:
        self._fd = fd
        self._taken_fd = taken_fd
        self._ticket = 0
        self._lock = RLock()
        self._unsent = b""
        self._lines = Lines(_COMMAND_LIMIT_BYTES)
        self._received: list[bytes] = []
        self._pid = os.getpid()
        for each in (fd, taken_fd):
            os.set_inheritable(each, False)
        os.register_at_fork(after_in_child=self._forked)

    @property
    def is_owner(self) -> bool:
        """Whether this is the crew's main process and not a fork of it."""
        return os.getpid() == self._pid

    def send(self, message: "dict[str, Any]") -> None:
        """Send one message; blocks while the supervisor takes nothing. After its end, messages go nowhere."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError, RuntimeError):
                pass  # closed, replaced, or flushed from within a signal handler
        with self._lock:
            ticket = 0
            if self.is_owner:  # a fork would read its parent's answers
                self._ticket = ticket = self._ticket + 1
                message = {**message, "w": ticket}
            # The leading newline ends what a broken send may have left behind.
            self._unsent += b"\n" + dumps(message).encode("utf-8", "replace") + b"\n"
            try:
                while self._unsent:
                    self._unsent = self._unsent[os.write(self._fd, self._unsent) :]
                while ticket:
                    answer = os.read(self._taken_fd, 4096)
                    if not answer or int.from_bytes(answer[-8:], "big") >= ticket:
                        break
            except OSError:
                self._unsent = b""

    def receive(self) -> "dict[str, Any] | None":
        """The next command; None when the supervisor is gone."""
        while True:
            while self._received:
                line = self._received.pop(0)
                try:
                    command = loads(line.decode())
                except ValueError:
                    continue
                if isinstance(command, dict):
                    return command
            data = os.read(self._fd, 1 << 16)
            if not data:
                return None
            self._received += self._lines.feed(data)

    def unread(self) -> bytes:
        """What was received and not given out yet."""
        return b"".join(line + b"\n" for line in self._received) + self._lines.rest

    def preload(self, data: bytes) -> None:
        """Take ``data`` as received."""
        self._received += self._lines.feed(data)

    def _forked(self) -> None:
        self._lock = RLock()
        self._unsent = b""
