"""The worker's ear at the guard's socket: how the rules are, and what they refuse.

A guard may be started later, or again.
"""

import time
from collections.abc import Callable
from pathlib import Path

from crewship.netguard.line import Line
from crewship.netguard.messages import SILENCE_SECONDS, Denial, GuardState, message_of


class GuardClient:
    """One listener.

    Args:
        path: The guard's socket.
        bridge: Whose guard it has to be; another one's is no guard.
        on_denied: Called (reader's thread) with each packet that was refused.
        on_change: Called (reader's thread) when it is told something new of the rules, or nothing any more.
    """

    def __init__(
        self,
        path: Path,
        bridge: str,
        on_denied: Callable[[Denial], None],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._path, self._bridge = path, bridge
        self._on_denied, self._on_change = on_denied, on_change
        self._state: GuardState | None = None
        self._heard_at = 0.0
        self._line = Line(path, "network guard", self._take, self._lost)

    def start(self) -> None:
        self._line.start()

    def close(self) -> None:
        self._line.close()

    @property
    def state(self) -> GuardState:
        """What the guard said last; that there is none when it was silent for too long."""
        state = self._state
        if state is None or time.monotonic() - self._heard_at > SILENCE_SECONDS:
            return GuardState(
                self._bridge,
                problem=f"No network guard is heard at {self._path}",
                hint="start it as root on the container host: crewship netguard",
            )
        if state.bridge != self._bridge:
            return GuardState(
                self._bridge,
                problem=f"The network guard at {self._path} guards {state.bridge}, and runs are on {self._bridge}",
                hint="give guard and worker the same CREWSHIP_NETWORK",
            )
        return state

    def _lost(self) -> None:
        if self._state is not None:
            self._state = None
            self._on_change()

    def _take(self, line: bytes) -> None:
        message = message_of(line)
        if isinstance(message, Denial):
            self._on_denied(message)
        elif message is not None:
            before, self._state, self._heard_at = self._state, message, time.monotonic()
            if before != message:
                self._on_change()
