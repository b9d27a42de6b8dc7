"""An activity's pulse: heartbeats from its first second to its last, from a thread of its own.

Without heartbeats a cancel is never delivered and a dead worker is noticed only at the activity's time-out. The same thread
sees that the worker is about to stop, and that the engine has given this attempt up and lets another do its work.
"""

import contextvars
import threading
from collections.abc import Callable
from types import TracebackType

from temporalio import activity

HEARTBEAT_SECONDS = 1.0


class Pulse:
    """Context manager around the whole of a blocking activity.

    Args:
        let_go: Called once when the worker is told to stop, or the attempt is not wanted any more: what it holds goes on
            without it.
        details: What a further attempt is to know, where this one's worker is killed.
    """

    def __init__(
        self, let_go: Callable[[], None] | None = None, details: Callable[[], tuple[object, ...]] = tuple
    ) -> None:
        self._let_go, self._details = let_go, details
        self._done = threading.Event()
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._beat,), name="pulse", daemon=True
        )

    def __enter__(self) -> "Pulse":
        self._thread.start()
        return self

    def __exit__(
        self, type_: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        # Not at once: half of all activities with a pulse are over within its first interval.
        while not self._done.wait(HEARTBEAT_SECONDS):
            activity.heartbeat(*self._details())
            if self._let_go is not None and (activity.is_worker_shutdown() or _given_up()):
                self._let_go()
                self._let_go = None


def _given_up() -> bool:
    """Whether the engine timed this attempt out; a cancel that was asked for is the workflow's to carry out."""
    details = activity.cancellation_details()
    return details is not None and (details.not_found or details.timed_out)
