"""The tail that a URL names: ``unix:///path``, ``redis(s)://host:port/0``, or ``off``."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from crewship.tail import TailPublisher, TailSubscriber


def open_publisher(url: str) -> TailPublisher:
    """For the workers. Does not connect here.

    Raises:
        ValueError: the URL names no tail. The message does not repeat it, for it may hold a password.
    """
    match urlsplit(url).scheme:
        case "unix":
            from crewship.socket_tail import SocketPublisher

            return SocketPublisher(_socket_path(url))
        case "redis" | "rediss":
            from crewship.redis_tail import RedisPublisher  # loads redis, which the embedded platform does not need

            return RedisPublisher(url)
        case "" if url == "off":
            return _Off()
    raise ValueError(_NO_TAIL)


def open_subscriber(url: str) -> TailSubscriber:
    """For the API. Does not connect here.

    Raises:
        ValueError: as :func:`open_publisher`.
    """
    match urlsplit(url).scheme:
        case "unix":
            from crewship.socket_tail import SocketSubscriber

            return SocketSubscriber(_socket_path(url))
        case "redis" | "rediss":
            from crewship.redis_tail import RedisSubscriber

            return RedisSubscriber(url)
        case "" if url == "off":
            return _Off()
    raise ValueError(_NO_TAIL)


_NO_TAIL = "the tail's URL is neither unix:///path nor redis://host:port/0 nor off"


def _socket_path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/"):
        raise ValueError(_NO_TAIL)
    return Path(unquote(parts.path))


class _Off:
    """Both ends of no tail: readers learn of events by their queries alone."""

    def publish(self, topic: str, message: bytes) -> None:
        pass

    def close(self) -> None:
        pass

    async def start(self, deliver: Callable[[str, bytes], None]) -> None:
        pass

    async def watch(self, topic: str) -> None:
        pass

    async def unwatch(self, topic: str) -> None:
        pass

    async def stop(self) -> None:
        pass
