"""Attempts of ``run_container`` that are at work in this worker, one a run.

When Temporal was away for longer than the heartbeat's time-out it starts another attempt while the old one still follows the
container. The log refuses what the old one writes (its fence), and this makes the old one let go before the new one begins.
"""

import threading
from collections.abc import Callable

_PATIENCE_SECONDS = 30.0


class Attempt:
    """One attempt, and how to make it let go.

    Attributes:
        launched: Whether there may be a container that goes on when the attempt fails.
    """

    def __init__(self, earlier: "Attempt | None" = None) -> None:
        self._lock = threading.Lock()
        self._hooks: list[Callable[[], None]] = []
        self._asked = False
        self._earlier = earlier
        self.launched = False
        self.ended = threading.Event()

    @property
    def is_let_go(self) -> bool:
        """Whether it was asked to let go."""
        return self._asked

    def on_let_go(self, *hooks: Callable[[], None]) -> None:
        """Call ``hooks`` when the attempt is to let go; at once when it was asked to already."""
        with self._lock:
            self._hooks += hooks
            asked = self._asked
        if asked:
            self._call(hooks)

    def succeed(self) -> None:
        """Make the attempt before this one let go, and wait until it has."""
        earlier, self._earlier = self._earlier, None
        if earlier is not None:
            earlier.let_go()
            earlier.ended.wait(_PATIENCE_SECONDS)

    def let_go(self) -> None:
        with self._lock:
            self._asked = True
            hooks = tuple(self._hooks)
        self._call(hooks)

    @staticmethod
    def _call(hooks: tuple[Callable[[], None], ...]) -> None:
        for hook in hooks:
            hook()


class Attempts:
    """The attempts of this worker, by run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: dict[str, Attempt] = {}

    def begin(self, run_id: str) -> Attempt:
        """Register a new attempt; it is to ``succeed`` the one before it before it touches anything."""
        with self._lock:
            attempt = self._current[run_id] = Attempt(self._current.get(run_id))
        return attempt

    def is_at_work(self, run_id: str) -> bool:
        """Whether this worker has an attempt of the run."""
        with self._lock:
            return run_id in self._current

    def end(self, run_id: str, attempt: Attempt) -> None:
        attempt.ended.set()
        with self._lock:
            if self._current.get(run_id) is attempt:
                del self._current[run_id]
