"""The slots of a container host: how many containers run there at once, those that are adopted included.

The slots of the worker's task queue bound what is started, and know nothing of what a worker before this one has started. A
worker that comes back to running containers and a backlog would run up to twice the host's capacity until they end. So a new
container waits here, at most one for each slot of the queue, until there is room for it, and until the network's rules hold.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

from crewship.contracts import container_name
from crewship.engine import ContainerMissing, Engine
from crewship.errors import Unavailable

_RUN_PREFIX = container_name("run_", 0)[:-2]
_LOOK_SECONDS = 0.5
"""Between two looks at containers that nobody has adopted yet: what they may end by tells nobody here."""


class Slots:
    """Who has one, by the container's name."""

    def __init__(self, engine: Engine, capacity: int, admits: Callable[[], bool] = lambda: True) -> None:
        self._engine, self._capacity, self._admits = engine, capacity, admits
        self._changed = threading.Condition()
        self._taken: list[str] = []
        """A name is there twice while one attempt takes over from another."""
        self._orphans: set[str] = set()
        """Containers that ran when this worker came and were not adopted yet."""

    def find_orphans(self) -> None:
        """Look for what runs already; once, before there are activities."""
        with contextlib.suppress(Unavailable):
            # By name: a spare that was taken goes on under the label of a spare.
            running = {found.name for found in self._engine.list() if found.status == "running"}
            self._orphans = {name for name in running if name.startswith(_RUN_PREFIX)}

    @contextlib.contextmanager
    def hold(
        self, name: str, *, adopted: bool, give_up: Callable[[], bool], admits: Callable[[], bool] | None = None
    ) -> Iterator[None]:
        """Have a slot for the container ``name`` within the block.

        Args:
            adopted: It has one already: do not wait.
            admits: Asked instead of what is asked for others.
            give_up: Asked while it waits; then the block is entered without a slot.
        """
        admits = admits or self._admits
        with self._changed:
            self._orphans.discard(name)
            while not adopted and (self.is_full() or not admits()) and not give_up():
                self._changed.wait(_LOOK_SECONDS)
                self._orphans = {orphan for orphan in self._orphans if self._runs(orphan)}
            self._taken.append(name)
        try:
            yield
        finally:
            with self._changed:
                self._taken.remove(name)
                self._changed.notify_all()

    def is_full(self) -> bool:
        """Whether a run that comes now has to wait."""
        return len(self._taken) + len(self._orphans) >= self._capacity

    def look(self) -> None:
        """Have those that wait ask again whether they are admitted."""
        with self._changed:
            self._changed.notify_all()

    def _runs(self, name: str) -> bool:
        try:
            return self._engine.inspect(name).status == "running"
        except ContainerMissing:
            return False
        except Unavailable:
            return True
