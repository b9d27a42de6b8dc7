"""What is known of a run's container from outside, beside what its supervisor reads from the kernel inside."""

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from activities.denials import Denials, Tell
from activities.network import Network
from crewship.engine import ContainerMissing, ContainerState, Engine
from crewship.errors import Unavailable

logger = logging.getLogger(__name__)

_KNOWN_SECONDS = 10.0


class Outside:
    """One container's runtime and network. Asks the engine once, beside the run's start, which waits for nothing here.

    Args:
        about: What is known of its network, for the record.
        tell: Given what the guard refuses this container.
    """

    def __init__(
        self,
        engine: Engine,
        network: Network,
        denials: Denials,
        container: str,
        about: Callable[[], dict[str, Any]],
        tell: Tell,
    ) -> None:
        self._engine, self._network, self._denials = engine, network, denials
        self._container, self._about, self._tell = container, about, tell
        self._state: ContainerState | None = None
        self._known = threading.Event()
        self._stopped = threading.Event()

    def start(self) -> None:
        """The container runs."""
        threading.Thread(target=self._ask, name=f"outside {self._container[:12]}", daemon=True).start()

    def stop(self) -> None:
        """It has ended, or is followed no more."""
        self._stopped.set()
        self._known.set()
        if self._state is not None:
            self._denials.forget(self._state.address, self._tell)

    def facts(self) -> dict[str, Any]:
        """For ``run.isolation``; waits until they are known."""
        self._known.wait(_KNOWN_SECONDS)
        return {
            "runtime": (self._state.runtime if self._state is not None else None) or None,
            "network": self._about(),
            "loosened": self._network.loosened(),
        }

    def _ask(self) -> None:
        try:
            state = self._state = self._engine.inspect(self._container)
            if state.address:
                started_ms = round(datetime.fromisoformat(state.started_at).timestamp() * 1000)
                self._denials.watch(state.address, started_ms, self._tell)
                if self._stopped.is_set():
                    self._denials.forget(state.address, self._tell)
        except (ContainerMissing, Unavailable, ValueError) as error:
            logger.info("%s: not seen from outside: %s", self._container, error)
        finally:
            self._known.set()
