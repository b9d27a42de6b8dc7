"""Removes containers that nobody has to wait for.

A crew that has told of its success and left no files has nothing more that anybody needs, and neither has a container that an
image was made in or tried in. The engine takes up to 0.2 s to take one down, and the run's end, or the deploy's next step, need
not wait for that: it is done here, beside. What such a crew told last is durable with the result of its activity (ADR 0029), so
its container stays until its run is closed. A removal that a killed worker did not get to is the reaper's
(``activities.maintenance``).
"""

import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from crewship.engine import Engine
from crewship.errors import Unavailable

logger = logging.getLogger(__name__)

LARGE_SECONDS = 5.0
"""After which a container is removed that packages were installed in: it takes a core for seconds, and the build goes on."""
_LOOK_SECONDS = 0.2
"""Between two looks at which runs are closed, while there are any to wait for; one query each."""


class Removals:
    """Of one container host.

    Args:
        at_once: How many may be under way; who brings one more waits for its own. And how many may wait for their run. So what
            runs and what is to be removed are together about three times what may run.
        still_open: Which of these runs are not closed yet.
    """

    def __init__(self, engine: Engine, at_once: int, still_open: Callable[[Collection[str]], set[str]]) -> None:
        self._engine, self._at_once, self._still_open = engine, at_once, still_open
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="remove")
        self._free = threading.BoundedSemaphore(at_once)
        self._waiting: dict[str, tuple[str, Callable[[], None]]] = {}
        """Run → its container, and what to do before it is removed."""
        self._later: dict[str, threading.Timer] = {}
        """Containers that are to be removed, and when."""
        self._changed = threading.Condition()
        self._is_closed = False
        self._looking = threading.Thread(target=self._look, name="remove closed", daemon=True)
        self._looking.start()

    def remove(self, container: str, *, after_seconds: float = 0.0) -> None:
        """Have ``container`` removed, now if it is one too many, and otherwise soon.

        Args:
            after_seconds: Not before, for the engine takes CPU for it from whoever waits for something else; but at the end.
        """
        with self._changed:
            if after_seconds and not self._is_closed:
                timer = self._later[container] = threading.Timer(after_seconds, self._due, (container,))
                timer.daemon = True
                timer.start()
                return
        self._soon(lambda: self._remove(container))

    def has_room(self) -> bool:
        """Whether one more may wait for its run."""
        return len(self._waiting) < self._at_once

    def remove_closed(self, run_id: str, container: str, dismiss: Callable[[], None]) -> None:
        """Have ``container`` removed when its run is closed.

        Args:
            dismiss: Called before.
        """
        with self._changed:
            self._waiting[run_id] = container, dismiss
            self._changed.notify_all()

    def close(self) -> None:
        """Wait for those that are under way and that were to wait; whose run is open stays, for the next worker's reaper."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            later = list(self._later)
        for container in later:
            self._due(container)
        self._looking.join()
        self._threads.shutdown()

    def _due(self, container: str) -> None:
        with self._changed:
            timer = self._later.pop(container, None)
        if timer is not None:
            timer.cancel()
            self._soon(lambda: self._remove(container))

    def _soon(self, work: Callable[[], None]) -> None:
        if not self._free.acquire(blocking=False):
            work()
            return
        try:
            self._threads.submit(self._beside, work)
        except RuntimeError:  # closed: the worker stops
            self._free.release()
            work()

    def _beside(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            self._free.release()

    def _look(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                self._changed.wait_for(lambda: self._is_closed, _LOOK_SECONDS)
                is_last, runs = self._is_closed, list(self._waiting)
            try:
                closed = set(runs) - self._still_open(runs)
            except Exception as error:  # whatever it is, the next look is another chance
                logger.info("runs that may be closed: %s", error)
                closed = set()
            for run_id in closed:
                with self._changed:
                    container, dismiss = self._waiting.pop(run_id)
                self._soon(lambda c=container, d=dismiss: self._dismiss(c, d))  # type: ignore[misc]
            if is_last:
                return

    def _dismiss(self, container: str, dismiss: Callable[[], None]) -> None:
        try:
            dismiss()
            self._remove(container)
        except Exception:
            logger.exception("%s: left to the reaper", container)

    def _remove(self, container: str) -> None:
        try:
            self._engine.remove(container)
        except Unavailable as error:
            logger.info("%s: left to the reaper: %s", container, error.detail)
