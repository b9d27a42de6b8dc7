"""The tail as Valkey's or Redis' pub/sub, for API processes and workers on several machines. A topic is a channel.

Publishing never waits for the network: hints go into a bounded queue, and a thread sends what is in it, many in one round
trip. While the server is away the queue is thrown away, not kept: an old hint is of no use. The subscriber has one connection and
makes a new one, with all its channels, whenever it breaks.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from crewship.socket_tail import MAX_MESSAGE_BYTES

_log = logging.getLogger(__name__)

_PREFIX: Final = "crewship:tail:"
_QUEUE_LENGTH: Final = 1024
_AT_ONCE: Final = 128
_RETRY_SECONDS: Final = 0.5
_CONFIRM_SECONDS: Final = 1.0
_TIMEOUT_SECONDS: Final = 3.0


class RedisPublisher:
    """A ``TailPublisher``; may be used by any number of threads. ``url`` is ``redis://`` or ``rediss://``."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._queue: queue.Queue[tuple[str, bytes]] = queue.Queue(_QUEUE_LENGTH)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="tail-publisher", daemon=True)
        self._thread.start()

    def publish(self, topic: str, message: bytes) -> None:
        if len(message) <= MAX_MESSAGE_BYTES and not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait((topic, message))

    def close(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(("", b""))  # wakes the thread
            self._thread.join(2 * _TIMEOUT_SECONDS)
            self._client.close()

    def _send_all(self) -> None:
        is_away = False
        while not self._closed.is_set():
            hints = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(hints) < _AT_ONCE:
                    hints.append(self._queue.get_nowait())
            pipeline = self._client.pipeline(transaction=False)
            for topic, message in hints:
                if topic:
                    pipeline.publish(_PREFIX + topic, message)
            try:
                pipeline.execute()
                is_away = False
            except (redis.RedisError, OSError) as error:
                if not is_away:
                    _log.warning("the tail cannot be reached, live events get slower: %s", type(error).__name__)
                is_away = True
                self._closed.wait(_RETRY_SECONDS)
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._queue.get_nowait()


class RedisSubscriber:
    """A ``TailSubscriber``. ``start`` does not wait for the server; ``watch`` waits a second at most."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._topics: dict[str, asyncio.Event] = {}
        """Watched topics; the event is set while the server has confirmed the subscription."""
        self._pubsub: redis.asyncio.client.PubSub | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, deliver: Callable[[str, bytes], None]) -> None:
        self._task = asyncio.create_task(self._follow(deliver), name="tail-subscriber")

    async def watch(self, topic: str) -> None:
        confirmed = self._topics.setdefault(topic, asyncio.Event())
        if self._pubsub is not None:
            await self._quietly(self._pubsub.subscribe, topic)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(confirmed.wait(), _CONFIRM_SECONDS)

    async def unwatch(self, topic: str) -> None:
        if self._topics.pop(topic, None) is not None and self._pubsub is not None:
            await self._quietly(self._pubsub.unsubscribe, topic)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _follow(self, deliver: Callable[[str, bytes], None]) -> None:
        is_away = False
        while True:
            client = redis.asyncio.Redis.from_url(
                self._url,
                socket_connect_timeout=_TIMEOUT_SECONDS,
                socket_keepalive=True,
                health_check_interval=15,
                retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
            )
            try:
                async with client, client.pubsub() as pubsub:
                    # A channel of no topic, because a connection without any cannot be read from.
                    await pubsub.subscribe(_PREFIX, *(_PREFIX + topic for topic in self._topics))
                    self._pubsub = pubsub
                    while True:
                        message = await pubsub.get_message(timeout=5)
                        is_away = False
                        if message is not None:
                            self._take(message, deliver)
            except (redis.RedisError, OSError) as error:
                if not is_away:
                    _log.warning("the tail cannot be reached, live events get slower: %s", type(error).__name__)
                is_away = True
            finally:
                self._pubsub = None
                for confirmed in self._topics.values():
                    confirmed.clear()
            await asyncio.sleep(_RETRY_SECONDS)

    def _take(self, message: dict[str, object], deliver: Callable[[str, bytes], None]) -> None:
        channel, data = message["channel"], message["data"]
        topic = channel.decode().removeprefix(_PREFIX) if isinstance(channel, bytes) else ""
        if message["type"] == "subscribe" and topic in self._topics:
            self._topics[topic].set()
        elif message["type"] == "message" and topic in self._topics and isinstance(data, bytes):
            try:
                deliver(topic, data)
            except Exception:
                _log.exception("a hint of %s was not taken", topic)

    async def _quietly(self, call: Callable[..., object], topic: str) -> None:
        """(Un)subscribe. What fails here fails for the reader too, which then begins anew with all topics."""
        try:
            await call(_PREFIX + topic)  # type: ignore[misc]
        except (redis.RedisError, OSError):
            _log.debug("the tail's connection broke at %s", topic)
