"""An activity's pulse: heartbeats from its first line to its last, from a thread of its own.

Without heartbeats a cancel is never delivered and a dead worker is noticed only at the activity's time-out. The same thread
sees that the worker is about to stop.
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
        on_worker_shutdown: Called once when the worker is told to stop: let go of what goes on without it.
    """

    def __init__(self, on_worker_shutdown: Callable[[], None] | None = None) -> None:
        self._on_shutdown = on_worker_shutdown
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
        while True:
            activity.heartbeat()
            if self._on_shutdown is not None and activity.is_worker_shutdown():
                self._on_shutdown()
                self._on_shutdown = None
            if self._done.wait(HEARTBEAT_SECONDS if self._on_shutdown is None else 0.25):
                return
