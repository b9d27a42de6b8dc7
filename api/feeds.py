"""The feeds of one API process: one for each log that somebody looks at, and the tail that tells them of new entries."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager

from api.blocks import Blocks
from api.feed import POLL_SECONDS, Feed, Query, ReadState
from crewship.storage import ObjectStore
from crewship.tail import TailSubscriber

log = logging.getLogger(__name__)


class Feeds:
    """The feeds of this process: one for each log that somebody looks at."""

    def __init__(
        self,
        *,
        query: Query,
        read_state: ReadState,
        store: ObjectStore,
        tail: TailSubscriber,
        blocks: Blocks | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._query, self._read_state, self._store, self._tail = query, read_state, store, tail
        self.blocks = blocks or Blocks()
        self._poll_seconds = poll_seconds
        self._open: dict[str, Feed] = {}
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._watched: set[str] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def start(self) -> None:
        """Begin to hear the tail."""
        await self._tail.start(self._deliver)

    def end_streams(self) -> None:
        """Have every stream end in order after what it has; clients resume elsewhere."""
        self._stopping = True
        for feed in self._open.values():
            feed.end()

    async def stop(self) -> None:
        self.end_streams()
        while self._tasks:
            for feed in self._open.values():
                feed.stop()
            await asyncio.wait(self._tasks)
        await self._tail.stop()

    @asynccontextmanager
    async def open(self, workflow_id: str, *, reading: bool = True) -> AsyncIterator[Feed]:
        """The log's feed, for as long as the block lasts.

        Args:
            workflow_id: ``run-<id>`` or ``deploy-<id>``; its row is known to exist.
            reading: Whether events are wanted, not only the end.
        """
        async with AsyncExitStack() as stack:
            feed = self._open.get(workflow_id)
            if feed is None:
                feed = self._open[workflow_id] = Feed(
                    workflow_id, query=self._query, read_state=self._read_state, store=self._store, blocks=self.blocks,
                    poll_seconds=self._poll_seconds,
                )  # fmt: skip
                if self._stopping:
                    feed.end()
            feed.users += 1
            feed.readers += reading
            stack.callback(self._leave, feed, reading)
            await feed.start(self._spawn)
            yield feed

    def _leave(self, feed: Feed, reading: bool) -> None:
        feed.users -= 1
        feed.readers -= reading
        if feed.users == 0:
            self._open.pop(feed.workflow_id, None)
            task = feed.stop()
            if feed.workflow_id in self._watched:
                self._keep(asyncio.create_task(self._retire(feed.workflow_id, task)))

    async def _retire(self, topic: str, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            await asyncio.wait([task])
        if topic in self._watched and topic not in self._open:  # somebody else may be looking at it by now
            self._watched.discard(topic)
            await self._quietly(self._tail.unwatch(topic))

    def _spawn(self, feed: Feed) -> asyncio.Task[None]:
        return self._keep(asyncio.create_task(self._follow(feed)))

    def _keep(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _follow(self, feed: Feed) -> None:
        """The task of a feed: first the tail, then the query, so that nothing falls between them."""
        self._watched.add(feed.workflow_id)
        await self._quietly(self._tail.watch(feed.workflow_id))
        await feed.follow()

    async def _quietly(self, call: Awaitable[None]) -> None:
        try:
            await call
        except Exception:  # whatever is wrong with the hint bus, it costs latency and nothing else
            log.exception("the tail does not work; events come by query")

    def _deliver(self, topic: str, message: bytes) -> None:
        feed = self._open.get(topic)
        if feed is not None:
            feed.hint(message)
