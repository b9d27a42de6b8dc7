"""Removes containers that nobody has to wait for.

A crew that has told of its success, all of it durable, and left no files has nothing more that anybody needs, and neither has a
container that an image was made in or tried in. The engine takes up to 0.2 s to take one down, and the run's end, or the deploy's
next step, need not wait for that: it is done here, beside. A removal that a killed worker did not get to is the reaper's
(``activities.maintenance``).
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from crewship.engine import Engine
from crewship.errors import Unavailable

logger = logging.getLogger(__name__)


class Removals:
    """Of one container host.

    Args:
        at_once: How many may be under way; who brings one more waits for its own. So what runs and what is being removed are
            together at most twice what may run.
    """

    def __init__(self, engine: Engine, at_once: int) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="remove")
        self._free = threading.BoundedSemaphore(at_once)

    def remove(self, container: str) -> None:
        """Have ``container`` removed, now if it is one too many, and otherwise soon."""
        if not self._free.acquire(blocking=False):
            self._remove(container)
            return
        try:
            self._threads.submit(self._remove_beside, container)
        except RuntimeError:  # closed: the worker stops
            self._free.release()
            self._remove(container)

    def close(self) -> None:
        """Wait for those that are under way."""
        self._threads.shutdown()

    def _remove_beside(self, container: str) -> None:
        try:
            self._remove(container)
        finally:
            self._free.release()

    def _remove(self, container: str) -> None:
        try:
            self._engine.remove(container)
        except Unavailable as error:
            logger.info("%s: left to the reaper: %s", container, error.detail)
