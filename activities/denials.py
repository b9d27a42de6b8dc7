"""What the network guard refuses, told to the run whose container asked for it.

A packet has an address and no run. A run's address is known a moment after its container's start, so what nobody has
claimed yet is kept for a while; by its time it is known whether it was this container's or that of one that had the address
before.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from crewship.clock import from_ms, rfc3339
from crewship.events import Draft
from crewship.netguard.messages import Denial

_KEPT = 2000
_KEPT_SECONDS = 600.0
"""As long as a warm container may wait for its run: what its imports were refused belongs in that run's log."""
_AGAIN_MS = 10_000
"""After how long the same refusal is told again, with how often it was met."""
_TARGETS = 500
"""Different ones that one run is told of; a scan of a network is no news after that."""

Tell = Callable[[Draft], None]


@dataclass(slots=True)
class _Seen:
    told_at_ms: int
    count: int = 0
    """Since it was told."""


@dataclass(slots=True)
class _Listener:
    since_ms: int
    tell: Tell
    seen: dict[tuple[str, int | None, str], _Seen] = field(default_factory=dict)

    def take(self, denial: Denial) -> None:
        """Tell of it; of the same one again after a while only."""
        key = (denial.host, denial.port, denial.protocol)
        seen = self.seen.get(key)
        if seen is None:
            if len(self.seen) >= _TARGETS:
                return
            self.seen[key] = _Seen(denial.at_ms)
            self.tell(draft_of(denial))
        elif denial.at_ms - seen.told_at_ms < _AGAIN_MS:
            seen.count += 1
        else:
            self.seen[key] = _Seen(denial.at_ms)
            self.tell(draft_of(denial, seen.count + 1))


class Denials:
    """Between the guard and the runs of one host. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[str, _Listener] = {}
        self._unclaimed: deque[tuple[float, Denial]] = deque(maxlen=_KEPT)

    def hear(self, denial: Denial) -> None:
        """The guard refused a packet."""
        with self._lock:
            listener = self._listeners.get(denial.source)
            if listener is None:
                self._unclaimed.append((time.monotonic(), denial))
            else:
                listener.take(denial)

    def watch(self, address: str, since_ms: int, tell: Tell) -> None:
        """From now on what ``address`` is refused is told by ``tell``, and what it was refused since ``since_ms``."""
        with self._lock:
            listener = self._listeners[address] = _Listener(since_ms, tell)
            oldest = time.monotonic() - _KEPT_SECONDS
            rest: deque[tuple[float, Denial]] = deque(maxlen=_KEPT)
            for heard_at, denial in self._unclaimed:
                if denial.source == address:
                    if denial.at_ms >= since_ms:
                        listener.take(denial)
                elif heard_at >= oldest:
                    rest.append((heard_at, denial))
            self._unclaimed = rest

    def forget(self, address: str, tell: Tell) -> None:
        """The container of ``address`` has ended; fine when another one has the address by now."""
        with self._lock:
            listener = self._listeners.get(address)
            if listener is not None and listener.tell == tell:
                del self._listeners[address]


def draft_of(denial: Denial, count: int = 1) -> Draft:
    """The event. ``count`` is how often it was met since it was told last."""
    data: dict[str, object] = {"host": denial.host, "port": denial.port, "protocol": denial.protocol}
    if denial.reason is not None:
        data["reason"] = denial.reason
    if count > 1:
        data["count"] = count
    return Draft(rfc3339(from_ms(denial.at_ms)), "network.denied", data)
