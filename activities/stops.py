"""Stops that were asked for, shared by the activities of one worker: so that a container that is just being created is not
started any more. A hint only: the truth is the workflow's ``cancel_requested``, which a retried activity asks for.

And the one place where a stop and a success meet: whichever is first under the lock is what happened (ADR 0029)."""

import threading


class Stops:
    """Run ids with a stop request, while their container activity is at work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, threading.Event] = {}
        self._settled: set[str] = set()

    def watch(self, run_id: str) -> threading.Event:
        """The event that a stop of ``run_id`` sets; ``forget`` it at the end. What was settled before is open again."""
        with self._lock:
            self._settled.discard(run_id)
            return self._events.setdefault(run_id, threading.Event())

    def request(self, run_id: str) -> bool:
        """Ask for a stop; False when there is nothing to stop any more, because the run is settled."""
        with self._lock:
            if run_id in self._settled:
                return False
            event = self._events.get(run_id)
            if event is not None:
                event.set()
        return True

    def settle(self, run_id: str) -> bool:
        """The crew has told of its success whole, and its supervisor waits to be dismissed; False when a stop was first."""
        with self._lock:
            event = self._events.get(run_id)
            if event is None or event.is_set():
                return False
            self._settled.add(run_id)
        return True

    def dismissed(self, run_id: str) -> None:
        """Its supervisor waits no more."""
        with self._lock:
            self._settled.discard(run_id)

    def forget(self, run_id: str) -> None:
        with self._lock:
            self._events.pop(run_id, None)
