"""Containers made ahead. Single use: a run that takes one renames it to its own container. Losing one costs nothing.

A deployment in use has a spare that is started and waits for a run's first command: the engine's part of a start, which is
nearly all of it, is over. It holds about 15 MB, nothing of a run and no secret, no code of the project was run in it, and it goes
when the deployment was not used for a while. With ``[run] warm = N`` a deployment has N for as long as it is current, and in
each the crew is imported already (phase 1 of ``docs/reference/frames.md``), with the project's env vars: of one version, so that
a run whose version is another one does not get it. What the imports print is held by the supervisor and told in the run's log.

None is made while every slot of the host is taken: a run that waits for a slot gains nothing by it, and making it takes CPU from
those that run.
"""

import contextlib
import json
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from crewship.engine import LABEL_DEPLOYMENT, Attachment, ContainerSpec, Engine

logger = logging.getLogger(__name__)

SPARE_PREFIX = "crewship-spare-"
_MAX_DEPLOYMENTS = 16
SETTLE_SECONDS = 0.5
"""In which a deploy's last step, and who waits for it, are done: what nobody waits for takes no CPU from them."""
_BUSY_SECONDS = 2.0
"""After so long a busy host is looked at again."""


@dataclass(frozen=True, slots=True)
class Warmth:
    """How many spares are to have the crew imported, and how.

    Attributes:
        count: ``[run] warm``; 0: the installation's number, nothing imported.
        env_version: Of the project, at which ``boot`` was made.
        boot: The command of phase 1, given the nonce of the container's frames.
        timeout_seconds: For the imports.
    """

    count: int
    env_version: int
    boot: Callable[[str], bytes]
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Spare:
    """One spare container. ``env_version`` and ``nonce`` are None while nothing of the project is in it."""

    spec: ContainerSpec
    container: str
    env_version: int | None = None
    nonce: str | None = None
    """Which its supervisor was given; that of a former key is known only for as long as the key is there."""


class Spares:
    """Spare containers of one host, by deployment; the least recently used deployment's are given up first.

    Args:
        engine: The host's.
        per_deployment: How many a deployment in use has that asks for none; 0: none.
        keep_seconds: How long those stay after the deployment's last use.
        nonce: Of the frames of a container, by its id.
        admits: Whether such a container may be started now: its network's rules hold.
        permit: Called with a container before anything of the project runs in it: it may reach what its spec says.
        forget: Called when a container is gone.
        is_busy: Whether every slot of the host is taken: what a run would wait for then is not its container.
    """

    def __init__(
        self,
        engine: Engine,
        per_deployment: int,
        keep_seconds: float,
        nonce: Callable[[str], str],
        admits: Callable[[ContainerSpec], bool] = lambda spec: True,
        permit: Callable[[str, ContainerSpec], None] = lambda container, spec: None,
        forget: Callable[[str], None] = lambda container: None,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._nonce, self._admits = nonce, admits
        self._permit, self._forget, self._is_busy = permit, forget, is_busy
        self._engine, self._per_deployment, self._keep_seconds = engine, per_deployment, keep_seconds
        self._lock = threading.Lock()
        self._spares: OrderedDict[str, list[Spare]] = OrderedDict()
        self._used_at: dict[str, float] = {}
        self._on_the_way: set[str] = set()
        """Names of those that are being made, or renamed: in nobody's hand, and no strays."""
        self._put_off: dict[str, tuple[ContainerSpec, Warmth]] = {}
        """What deployments get, as they asked last, when the host is less busy."""
        self._makers = ThreadPoolExecutor(1, thread_name_prefix="spares")
        self._closed = threading.Event()
        threading.Thread(target=self._expire, name="spares expire", daemon=True).start()

    def take(self, spec: ContainerSpec, env_version: int) -> Spare | None:
        """A spare made for exactly what ``spec`` asks for, now under its name; or None."""
        deployment_id = spec.labels[LABEL_DEPLOYMENT]
        with self._lock:
            spares = self._spares.get(deployment_id, [])
            alike = [spare for spare in spares if replace(spare.spec, name="", kind="run") == replace(spec, name="")]
            stale = [spare for spare in spares if not self._is_fresh(spare, env_version)]
            match = next((spare for spare in alike if spare not in stale), None)
            for spare in [*stale, *([match] if match else [])]:
                spares.remove(spare)
            if match is not None:
                self._on_the_way.add(match.spec.name)
        for spare in stale:
            self.later(self._remove, spare)
        if match is None:
            return None
        try:
            if self._engine.inspect(match.container).status != "running":
                self._engine.remove(match.container)
                return None
            self._engine.rename(match.container, spec.name)
        except Exception as error:  # gone, or the name is taken: the run creates its own
            logger.info("spare of %s could not be taken: %s", deployment_id, error)
            return None
        finally:
            self._arrived(match.spec.name)
        return match

    def _is_fresh(self, spare: Spare, env_version: int) -> bool:
        return spare.env_version in (None, env_version) and spare.nonce in (None, self._nonce(spare.container))

    def replenish(self, spec: ContainerSpec, warmth: Warmth, after_seconds: float = 0.0) -> None:
        """Make up for what was taken, in the background."""
        with self._lock:
            self._used_at[spec.labels[LABEL_DEPLOYMENT]] = time.monotonic()
        self.later(self._fill, spec, warmth, after_seconds=after_seconds)

    def later(self, call: Callable[..., None], *arguments: object, after_seconds: float = 0.0) -> None:
        """Call in the background, after what is under way; what it raises costs nothing but speed.

        Args:
            after_seconds: Not before: a container that is made takes CPU from whoever waits for something else.
        """

        def guarded() -> None:
            try:
                call(*arguments)
            except Exception as error:
                logger.info("spares: %s", error)

        def submit() -> None:
            with contextlib.suppress(RuntimeError):  # closed
                self._makers.submit(guarded)

        if not after_seconds:
            submit()
            return
        timer = threading.Timer(after_seconds, submit)
        timer.daemon = True
        timer.start()

    def names(self) -> set[str]:
        """Names of those in hand or on the way into or out of it; a sweep must list containers before it asks."""
        with self._lock:
            return {spare.spec.name for spares in self._spares.values() for spare in spares} | self._on_the_way

    def discard(self, deployment_id: str) -> None:
        """Remove those of a deployment: its image could not be removed while there is one.

        Raises:
            Unavailable: the engine cannot be reached.
        """
        with self._lock:
            left = list(self._spares.get(deployment_id, ()))
            self._used_at.pop(deployment_id, None)
        for spare in left:
            self._engine.remove(spare.container)
            self._forget(spare.container)
            with self._lock:
                self._spares[deployment_id].remove(spare)

    def close(self) -> None:
        """Remove all that were not taken."""
        self._closed.set()
        with self._lock:
            left = [spare for spares in self._spares.values() for spare in spares]
            self._spares.clear()
        self._makers.shutdown(wait=True)
        for spare in left:
            self._remove(spare)

    # --- in the background ------------------------------------------------------------------------------------------------

    def _fill(self, spec: ContainerSpec, warmth: Warmth) -> None:
        deployment_id = spec.labels[LABEL_DEPLOYMENT]
        if not self._is_busy():
            for _ in range(warmth.count or self._per_deployment):
                self._make(spec, warmth)
            return
        with self._lock:
            is_put_off = deployment_id in self._put_off
            self._put_off[deployment_id] = spec, warmth
        if not is_put_off:
            self.later(self._fill_late, deployment_id, after_seconds=_BUSY_SECONDS)

    def _fill_late(self, deployment_id: str) -> None:
        with self._lock:
            spec, warmth = self._put_off.pop(deployment_id)
        self._fill(spec, warmth)

    def _make(self, spec: ContainerSpec, warmth: Warmth) -> None:
        deployment_id = spec.labels[LABEL_DEPLOYMENT]
        with self._lock:
            enough = len(self._spares.get(deployment_id, [])) >= (warmth.count or self._per_deployment)
            if enough or deployment_id not in self._used_at or self._closed.is_set() or not self._admits(spec):
                return
            name = f"{SPARE_PREFIX}{deployment_id.replace('_', '-')}-{secrets.token_hex(4)}"
            self._on_the_way.add(name)
        try:
            self._keep(self._started(replace(spec, name=name, kind="spare"), warmth), deployment_id)
        except Exception as error:
            logger.info("no spare for %s: %s", deployment_id, error)
            self._remove(Spare(spec, name))
        finally:
            self._arrived(name)

    def _keep(self, spare: Spare, deployment_id: str) -> None:
        surplus: list[Spare] = []
        with self._lock:
            if self._closed.is_set() or deployment_id not in self._used_at:
                surplus.append(spare)
            else:
                self._spares.setdefault(deployment_id, []).append(spare)
                self._spares.move_to_end(deployment_id)
                while len(self._spares) > _MAX_DEPLOYMENTS:
                    surplus += self._spares.popitem(last=False)[1]
        for old in surplus:
            self._remove(old)

    def _started(self, spec: ContainerSpec, warmth: Warmth) -> Spare:
        container = self._engine.create(spec)
        if not warmth.count:
            self._engine.start(container)
            return Spare(spec, container)
        nonce = self._nonce(container)
        attachment = self._engine.attach(container)
        late = threading.Timer(warmth.timeout_seconds, attachment.close)
        late.start()
        try:
            self._permit(container, spec)
            attachment.write(warmth.boot(nonce))
            self._engine.start(container)
            if not _imported(attachment, nonce):
                raise RuntimeError("the crew could not be imported")
        finally:
            late.cancel()
            attachment.close()
        return Spare(spec, container, warmth.env_version, nonce)

    def _expire(self) -> None:
        """Give up what was not used for a while; a deployment that asked for warm ones keeps them."""
        while not self._closed.wait(min(10.0, self._keep_seconds / 4)):
            with self._lock:
                before = time.monotonic() - self._keep_seconds
                unused = [deployment for deployment, at in self._used_at.items() if at < before]
                old = [spare for d in unused for spare in self._spares.get(d, []) if spare.env_version is None]
                for spare in old:
                    self._spares[spare.spec.labels[LABEL_DEPLOYMENT]].remove(spare)
                for deployment in [deployment for deployment in unused if not self._spares.get(deployment)]:
                    self._spares.pop(deployment, None)
                    del self._used_at[deployment]
            for spare in old:
                self._remove(spare)

    def _arrived(self, name: str) -> None:
        with self._lock:
            self._on_the_way.discard(name)

    def _remove(self, spare: Spare) -> None:
        try:
            self._engine.remove(spare.container)
            self._forget(spare.container)
        except Exception as error:
            logger.info("spare %s stays until the next sweep: %s", spare.container, error)


def _imported(attachment: Attachment, nonce: str) -> bool:
    """Whether phase 1 went well; its frames stay with the supervisor, unacknowledged, for the run."""
    rest = b""
    while (piece := attachment.read()) is not None:
        if piece[0] == "stdout":
            *lines, rest = (rest + piece[1]).split(b"\n")
            for line in lines:
                frame = json.loads(line)
                if frame.get("k") == nonce and frame["t"] in ("loaded", "result", "end"):
                    return bool(frame["t"] == "loaded")
    return False
