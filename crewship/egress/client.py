"""The worker's line to the proxy: who may reach what, and what was refused.

What it was told it tells anew to a proxy that has been started again.
"""

import itertools
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from crewship.egress.messages import Done, EgressState, Forget, Message, Permit, line_of, message_of
from crewship.errors import Unavailable
from crewship.netguard.line import Line
from crewship.netguard.messages import SILENCE_SECONDS, Denial

_ANSWER_SECONDS = 5.0
"""The answer takes a millisecond; a proxy that is being started again takes this long."""


class EgressClient:
    """One line.

    Args:
        path: The proxy's socket.
        on_denied: Called (reader's thread) with each request that was refused.
        on_change: Called (reader's thread) when it says something new of itself, or nothing any more.
    """

    def __init__(
        self, path: Path, on_denied: Callable[[Denial], None], on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._path, self._on_denied, self._on_change = path, on_denied, on_change
        self._state: EgressState | None = None
        self._heard_at = 0.0
        self._changed = threading.Condition()
        """Guards all below."""
        self._peer: socket.socket | None = None
        self._numbers = itertools.count(1)
        self._done: set[int] = set()
        self._permits: dict[str, Permit] = {}
        self._line = Line(path, "egress", self._take, self._lost, self._found)

    def start(self) -> None:
        self._line.start()

    def close(self) -> None:
        self._line.close()

    @property
    def state(self) -> EgressState:
        """What the proxy said last; that there is none when it was silent for too long."""
        state = self._state
        if state is None or time.monotonic() - self._heard_at > SILENCE_SECONDS:
            return EgressState(
                problem=f"No egress proxy is heard at {self._path}",
                hint="crewship dev starts it as root; otherwise start it as root on the container host: crewship netguard",
            )
        return state

    def permit(self, container: str, address: str, hosts: tuple[str, ...], *, wait: bool = True) -> None:
        """Let the container at ``address`` reach ``hosts``; returns when that holds. Idempotent.

        Args:
            container: Its id.
            address: Its own.
            hosts: As ``[network] allow`` has them.
            wait: False: return at once; a proxy that is away is told when it is back.

        Raises:
            Unavailable: the proxy does not say so.
        """
        with self._changed:
            permit = self._permits[container] = Permit(next(self._numbers), container, address, hosts)
            self._send(permit)
            if not wait:
                return
            # Sent again by the reader when the line broke in between, under the same number.
            if not self._changed.wait_for(lambda: permit.number in self._done, _ANSWER_SECONDS):
                self._permits.pop(container, None)
                raise Unavailable(self.state.problem or "The egress proxy does not answer", hint=self.state.hint)
            self._done.discard(permit.number)

    def forget(self, container: str) -> None:
        """The container is gone. Idempotent; a proxy that is away learns of it when it is back."""
        with self._changed:
            if self._permits.pop(container, None) is not None or container in self.state.known:
                self._send(Forget(next(self._numbers), container))

    def known(self) -> set[str]:
        """Containers that may reach something, as this process or one before it has told."""
        with self._changed:
            return {*self._permits, *self.state.known}

    def _send(self, message: Message) -> None:
        if self._peer is not None:
            try:
                self._peer.sendall(line_of(message))
            except OSError:
                self._line.hang_up()

    def _found(self, peer: socket.socket) -> None:
        with self._changed:
            self._peer = peer
            for permit in self._permits.values():
                self._send(permit)

    def _lost(self) -> None:
        with self._changed:
            self._peer = None
        if self._state is not None:
            self._state = None
            self._on_change()

    def _take(self, line: bytes) -> None:
        match message_of(line):
            case Denial() as denial:
                self._on_denied(denial)
            case Done(number):
                with self._changed:
                    # Of a permit that was sent anew after a break nobody waits any more.
                    if any(permit.number == number for permit in self._permits.values()):
                        self._done.add(number)
                    self._changed.notify_all()
            case EgressState() as state:
                before, self._state, self._heard_at = self._state, state, time.monotonic()
                if before is None or (before.problem, before.url) != (state.problem, state.url):
                    self._on_change()
            case _:
                pass
