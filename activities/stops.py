"""Stops that were asked for, shared by the activities of one worker: so that a container that is just being created is not
started any more. A hint only: the truth is the workflow's ``cancel_requested``, which a retried activity asks for."""

import threading


class Stops:
    """Run ids with a stop request, while their container activity is at work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, threading.Event] = {}

    def watch(self, run_id: str) -> threading.Event:
        """The event that a stop of ``run_id`` sets; ``forget`` it at the end."""
        with self._lock:
            return self._events.setdefault(run_id, threading.Event())

    def request(self, run_id: str) -> None:
        with self._lock:
            event = self._events.get(run_id)
        if event is not None:
            event.set()

    def forget(self, run_id: str) -> None:
        with self._lock:
            self._events.pop(run_id, None)
