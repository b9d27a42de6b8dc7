"""The closed bridge of one host: where runs with ``[network] allow`` are, and the proxy that is their only way out.

It is made when the first of them is wanted, and looked after while there are any: whoever never restricts a run to named hosts
has neither bridge nor proxy. A container is started on it only while the guard's rules hold, the proxy serves, and a probe from
inside agrees. What a container may reach is told to the proxy before that container starts.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from activities.network import Network, probe_of
from activities.probed import STALE_SECONDS, Probed
from crewship.closed_bridge import ensure_closed_bridge
from crewship.docker_connection import translated
from crewship.docker_engine import DockerEngine
from crewship.egress.client import EgressClient
from crewship.engine import ContainerMissing, ContainerSpec
from crewship.errors import Unavailable
from crewship.netguard.client import GuardClient
from crewship.settings import Settings

_WANTED_SECONDS = 600.0
"""How long after it was last wanted it is still probed."""
_NO_PROXY = "localhost,127.0.0.1,::1"


class ClosedNetwork:
    """See the module.

    Args:
        engine: The host's.
        settings: Names of the bridges.
        network: The open one beside it.
        guard: What tells of the rules; None: there is none, and then nothing is started here.
        egress: The line to the proxy; None likewise.
        wake: Called when there is something to look at.
    """

    def __init__(
        self,
        engine: DockerEngine,
        settings: Settings,
        network: Network,
        guard: GuardClient | None,
        egress: EgressClient | None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine, self._settings, self._network = engine, settings, network
        self._guard, self._egress, self._wake = guard, egress, wake
        self._lock = threading.Lock()
        """Of the probe: one at a time."""
        self._is_closed = False
        self._wanted_at: float | None = None
        self._probed: Probed[tuple[str | None, str]] = Probed(
            settings.closed_network, "the logs of guard and proxy say what they did"
        )
        """For the host's address and the proxy's."""

    def admits(self) -> bool:
        """Whether a container may be started on it now. Costs nothing."""
        if self.trouble() is not None or not self._network.admits():
            return False
        return self._probed.place == self._place() and self._probed.is_young(STALE_SECONDS)

    def trouble(self) -> Unavailable | None:
        """What is known to be wrong; that nobody has wanted it yet is not."""
        if self._guard is None or self._egress is None:
            return Unavailable(
                "[network] allow cannot be kept to without the network guard", hint="unset CREWSHIP_NETWORK_GUARD=off"
            )
        state, egress = self._guard.state, self._egress.state
        if state.problem is not None:
            return Unavailable(state.problem, hint=state.hint)
        if state.closed_problem is not None:
            return Unavailable(state.closed_problem, hint="see the guard's log")
        if egress.problem is not None:
            return Unavailable(egress.problem, hint=egress.hint)
        return self._probed.problem

    def admits_now(self) -> bool:
        """The same for somebody who has a container to start: what is missing is made and probed meanwhile."""
        self._wanted_at = time.monotonic()
        if self.admits():
            return True
        self._wake()
        return False

    def look(self) -> None:
        """Make and probe it when it is wanted and time."""
        if self._guard is None or self._egress is None or self._wanted_at is None:
            return
        if time.monotonic() - self._wanted_at > _WANTED_SECONDS:
            return
        with self._lock:
            if not self._is_closed and self._probed.is_due(self._place()):
                self._probed.ask(self._probe)

    def close(self) -> None:
        """Probe no more; waits for the one that is under way."""
        with self._lock:
            self._is_closed = True

    def _probe(self) -> tuple[tuple[str | None, str], float] | None:
        with translated():
            gateway = ensure_closed_bridge(
                self._engine.connection.api, self._settings.closed_network, self._settings.instance
            )
        place = self._place()
        if place != (str(gateway), place[1]) or not place[1]:
            return None  # guard and proxy are about to see it
        return place, probe_of(self._engine, self._settings, closed=place[1])

    def permit(self, container: str, spec: ContainerSpec, *, is_adopted: bool = False) -> None:
        """Have the proxy let a container, which may not have been started yet, reach what its spec says. Idempotent.

        Args:
            container: Its name or id.
            spec: What it was made for.
            is_adopted: Its crew runs already: it is followed whether the proxy is there or not.

        Raises:
            Unavailable: the proxy does not say so.
            ContainerMissing: it is gone.
        """
        if not spec.allow:
            return
        if self._egress is None:
            raise self.trouble() or Unavailable("There is no egress proxy")
        state = self._engine.inspect(container)
        if not state.address:
            raise Unavailable(f"{container} has no address on {spec.network}")
        if not is_adopted and not self._egress.state.url:
            raise Unavailable("The egress proxy serves nobody yet")
        self._egress.permit(state.id, state.address, spec.allow, wait=not is_adopted)

    def forget(self, container: str) -> None:
        """The container has ended: nobody at its address may reach anything. Idempotent."""
        if self._egress is not None:
            self._egress.forget(container)

    def sweep(self) -> None:
        """Forget containers that have ended while nobody saw it."""
        for container in self._egress.known() if self._egress is not None else ():
            try:
                ended = self._engine.inspect(container).status == "exited"
            except ContainerMissing:
                ended = True
            if ended:
                self.forget(container)

    def environment(self) -> dict[str, str]:
        """Variables by which a run's programs find the proxy."""
        url = self._egress.state.url if self._egress is not None else ""
        return {
            spelled: value
            for name, value in (("HTTP_PROXY", url), ("HTTPS_PROXY", url), ("NO_PROXY", _NO_PROXY))
            for spelled in (name, name.lower())
        }

    def facts(self, allow: tuple[str, ...]) -> dict[str, Any]:
        """What is known outside of a run's network, for its record."""
        open_facts = self._network.facts(self._settings.network)
        proxy = "on" if self._egress is not None and self._egress.state.problem is None else "lost"
        return {**open_facts, "mode": "allow", "allow": list(allow), "proxy": proxy}

    def _place(self) -> tuple[str | None, str]:
        guard = self._guard.state.gateway if self._guard is not None else None
        return guard, self._egress.state.url if self._egress is not None else ""
