"""The tail: hints that make live events fast. A hint may be lost at any time and only latency is lost with it.

Publishers are worker threads (blocking, must never wait nor raise), the one subscriber of a process is the API's feed.
Adapters: ``crewship.socket_tail`` (a unix datagram socket, embedded), ``crewship.redis_tail`` (Valkey/Redis pub/sub).
Topics are workflow ids. Both adapters pass ``tests/crewship/test_tail.py``.
"""

from collections.abc import Callable
from typing import Protocol


class TailPublisher(Protocol):
    def publish(self, topic: str, message: bytes) -> None:
        """Send a hint (at most 64 KiB; longer ones are dropped) without waiting; never raises."""
        ...

    def close(self) -> None: ...


class TailSubscriber(Protocol):
    """Used from one event loop. ``deliver(topic, message)`` is called in that loop for each hint of a watched topic."""

    async def start(self, deliver: Callable[[str, bytes], None]) -> None: ...

    async def watch(self, topic: str) -> None: ...

    async def unwatch(self, topic: str) -> None: ...

    async def stop(self) -> None: ...
