"""Whether containers may be started on the runs' bridge now: the guard says that its rules hold, and a probe from inside agrees.

Asked for before every start. The probe is a container, so it runs when the guard says something new and once a minute; in between
its last answer holds.
"""

import threading
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from activities.probed import STALE_SECONDS, Probed
from crewship.docker_connection import require_apart, translated
from crewship.docker_engine import DockerEngine
from crewship.engine import ContainerMissing, ImageMissing
from crewship.errors import Unavailable
from crewship.netguard.client import GuardClient
from crewship.netguard.messages import GuardState
from crewship.network_probe import TARGETS, ProbeFailed, probe
from crewship.provision.base_image import find_base_image
from crewship.settings import Settings

_OFF = "CREWSHIP_NETWORK_GUARD=off"


class Network:
    """The bridge of one host's runs.

    Args:
        engine: The host's.
        settings: Bridge, guard, exceptions, runtime.
        guard: What tells of the rules; None: there need not be one.
    """

    def __init__(self, engine: DockerEngine, settings: Settings, guard: GuardClient | None) -> None:
        self._engine, self._settings, self._guard = engine, settings, guard
        self._lock = threading.Lock()
        """Of the probe: one at a time."""
        self._is_closed = False
        self._probed: Probed[GuardState] = Probed(
            settings.network, "is the guard on this host? its log says what it did"
        )

    def admits(self) -> bool:
        """Whether a container may be started now. Costs nothing."""
        return self.problem() is None

    def problem(self) -> Unavailable | None:
        """Why no container may be started now; None: it may."""
        if (trouble := self.trouble()) is not None or self._is_unguarded:
            return trouble
        if self._probed.place is None or not self._probed.is_young(STALE_SECONDS):
            return Unavailable(
                "The runs' network was not probed yet", hint="it is within seconds, once there is an image"
            )
        return None

    def trouble(self) -> Unavailable | None:
        """What is known to be wrong; that it was not probed yet is not."""
        if self._is_unguarded:
            return None
        state = self._state()
        return self._probed.problem if state.problem is None else Unavailable(state.problem, hint=state.hint)

    def changed(self) -> None:
        """The guard said something new: what was probed before is worth nothing, unless it was of the closed bridge alone."""
        if self._probed.place != self._state():
            self._probed.place = None

    def look(self, image: str | None = None) -> None:
        """Probe when it is time; ``image``: one that is there, in case nothing else is."""
        if self._is_unguarded:
            return
        with self._lock:
            state = self._state()
            if not self._is_closed and state.problem is None and self._probed.is_due(state):
                self._probed.ask(lambda: (state, self._probe(image)))

    def close(self) -> None:
        """Probe no more; waits for the one that is under way, which would leave its container."""
        with self._lock:
            self._is_closed = True

    def require(self, image: str) -> None:
        """Raise ``Unavailable`` when nothing may be started; ``image``: what is to be."""
        if self.problem() is not None:
            self.look(image)
        if (problem := self.problem()) is not None:
            raise problem

    def loosened(self) -> list[str]:
        """What was made less strict by a setting, each as it stands in the environment."""
        found = [_OFF] if self._guard is None else []
        if self._settings.network_reach:
            found.append(f"CREWSHIP_NETWORK_REACH={self._settings.network_reach}")
        return found

    def facts(self, network: str | None) -> dict[str, Any]:
        """What is known outside of a run's network, for its record."""
        if network is None:
            return {"mode": "none"}
        if self._guard is None:
            return {"mode": "open", "guard": "off"}
        state = self._state()
        return {
            "mode": "open",
            "guard": "on" if state.problem is None else "lost",
            "blocked": list(state.blocked),
            "reach": list(state.reach),
        }

    @property
    def _is_unguarded(self) -> bool:
        """Whether there is nothing to look at."""
        return self._guard is None and not self._settings.runtime

    def _state(self) -> GuardState:
        if self._guard is None:
            return GuardState(self._settings.network)
        return replace(self._guard.state, closed_problem=None, gateway=None)

    def _probe(self, image: str | None) -> float:
        self._check_bridge()
        api = self._engine.connection.api
        settings = self._settings
        if settings.runtime:
            with translated():
                runtimes = api.info()["Runtimes"]
            if settings.runtime not in runtimes:
                raise Unavailable(
                    f"The container engine has no runtime {settings.runtime!r}",
                    hint=f'register it under "runtimes" in /etc/docker/daemon.json; it has {", ".join(sorted(runtimes))}',
                )
        try:
            return probe_of(self._engine, settings, image=image)
        except ProbeFailed:
            if self._guard is None:
                return 0.0  # that the runtime works is all that was asked
            raise

    def _check_bridge(self) -> None:
        """A bridge of that name that somebody else made may let containers reach each other.

        Raises:
            Unavailable: it does.
        """
        name = self._settings.network
        try:
            with translated(name):
                found = self._engine.connection.api.inspect_network(name)
        except ContainerMissing:
            return  # made with the first container
        require_apart(name, found)


def probe_of(engine: DockerEngine, settings: Settings, *, image: str | None = None, closed: str = "") -> float:
    """Probe a bridge of this host; as ``crewship.network_probe.probe``.

    Args:
        image: One that is there, in case nothing else is.
        closed: Where runs reach the proxy: it is the closed bridge that is probed.
    """
    return probe(
        engine.connection.api,
        instance=settings.instance,
        image=image or _image(engine, settings),
        bridge=settings.closed_network if closed else settings.network,
        targets=[target for target in TARGETS if closed or not _is_excepted(target, settings)],
        runtime=settings.runtime,
        proxy=closed,
    )


def _image(engine: DockerEngine, settings: Settings) -> str:
    """One with a Python that is here: the base, or any of this installation's."""
    with translated():
        base = find_base_image(engine.connection.api, configured=settings.base_image)
    if base is not None:
        return base.image_id
    image = next(iter(engine.images()), None)
    if image is None:
        raise ImageMissing("no image yet")
    return image.id


def _is_excepted(target: str, settings: Settings) -> bool:
    address = IPv4Address(target)
    return any(address in reach.network for reach in settings.guard_options.reach)
