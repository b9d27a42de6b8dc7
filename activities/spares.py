"""Containers made ahead. Single use: a run that takes one renames it to its own container. Losing one costs nothing.

Usually a spare is created and not started: it holds no process and no memory, and takes ``create`` out of a run's start. With
``[run] warm = N`` a deployment has N that are started as well: the supervisor is up and waits for a run's first command, with
its network in place, which takes nearly all of a start away for about 15 MB each. Nothing of a run or of the project's secrets
is in one, and no code of the project was run.
"""

import logging
import secrets
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from crewship.engine import LABEL_DEPLOYMENT, ContainerSpec, Engine

logger = logging.getLogger(__name__)

SPARE_PREFIX = "crewship-spare-"
_MAX_DEPLOYMENTS = 16


class Spares:
    """Spare containers of one host, by deployment; the least recently used deployment's are given up first."""

    def __init__(self, engine: Engine, per_deployment: int) -> None:
        self._engine, self._per_deployment = engine, per_deployment
        self._lock = threading.Lock()
        self._spares: OrderedDict[str, list[tuple[ContainerSpec, str]]] = OrderedDict()
        self._on_the_way: set[str] = set()
        """Names of those that are being made, or renamed: in nobody's hand, and no strays."""
        self._makers = ThreadPoolExecutor(1, thread_name_prefix="spares")
        self._closed = False

    def take(self, spec: ContainerSpec) -> str | None:
        """A spare made for exactly what ``spec`` asks for, now under its name; or None."""
        deployment_id = spec.labels[LABEL_DEPLOYMENT]
        with self._lock:
            spares = self._spares.get(deployment_id, [])
            match = next((s for s in spares if replace(s[0], name="", kind="run") == replace(spec, name="")), None)
            if match is None:
                return None
            spares.remove(match)
            self._on_the_way.add(match[0].name)
        try:
            if self._engine.inspect(match[1]).status not in ("created", "running"):
                self._engine.remove(match[1])
                return None
            self._engine.rename(match[1], spec.name)
        except Exception as error:  # gone, or the name is taken: the run creates its own
            logger.info("spare of %s could not be taken: %s", deployment_id, error)
            return None
        finally:
            self._arrived(match[0].name)
        return match[1]

    def replenish(self, spec: ContainerSpec, warm: int = 0) -> None:
        """Make up for what was taken, in the background.

        Args:
            warm: How many are to be there and started; 0: the installation's number, not started.
        """
        for _ in range(max(warm, 1)):
            if (warm or self._per_deployment) > 0 and not self._closed:
                self._makers.submit(self._make, spec, warm)

    def _make(self, spec: ContainerSpec, warm: int) -> None:
        deployment_id = spec.labels[LABEL_DEPLOYMENT]
        name = f"{SPARE_PREFIX}{deployment_id.replace('_', '-')}-{secrets.token_hex(4)}"
        try:
            with self._lock:
                if self._closed or len(self._spares.get(deployment_id, [])) >= (warm or self._per_deployment):
                    return
                self._on_the_way.add(name)
            spare = replace(spec, name=name, kind="spare")
            container = self._engine.create(spare)
            if warm:
                self._engine.start(container)
            surplus: list[str] = []
            with self._lock:
                if self._closed:
                    surplus.append(container)
                else:
                    self._spares.setdefault(deployment_id, []).append((spare, container))
                    self._spares.move_to_end(deployment_id)
                    while len(self._spares) > _MAX_DEPLOYMENTS:
                        surplus += [s[1] for s in self._spares.popitem(last=False)[1]]
            for old in surplus:
                self._engine.remove(old)
        except Exception as error:
            logger.info("no spare for %s: %s", deployment_id, error)
        finally:
            self._arrived(name)

    def _arrived(self, name: str) -> None:
        with self._lock:
            self._on_the_way.discard(name)

    def names(self) -> set[str]:
        """Names of those in hand or on the way into or out of it; a sweep must list containers before it asks."""
        with self._lock:
            return {spec.name for spares in self._spares.values() for spec, _ in spares} | self._on_the_way

    def discard(self, deployment_id: str) -> None:
        """Remove those of a deployment that goes away: its image could not be removed while there is one.

        Raises:
            Unavailable: the engine cannot be reached.
        """
        with self._lock:
            left = list(self._spares.get(deployment_id, ()))
        for spare in left:
            self._engine.remove(spare[1])
            with self._lock:
                self._spares[deployment_id].remove(spare)

    def close(self) -> None:
        """Remove all that were not taken."""
        with self._lock:
            self._closed = True
            left = [container for spares in self._spares.values() for _, container in spares]
            self._spares.clear()
        self._makers.shutdown(wait=True)
        for container in left:
            try:
                self._engine.remove(container)
            except Exception as error:
                logger.info("spare %s stays until the next sweep: %s", container, error)
