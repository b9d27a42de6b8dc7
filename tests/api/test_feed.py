"""The live log by itself: an in-memory tail, a scripted log, and everything that may go wrong between them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import zstandard

from api.blocks import Blocks, Form
from api.feed import Feed, LogState
from api.feeds import Feeds
from crewship import events
from crewship.contracts import Batch, EventsPage, EventsQuery
from crewship.errors import InvalidCursor, NotFound, Unavailable
from crewship.folder_storage import FolderStore
from tests.api.logs import MemoryTail, ScriptedLog

RUN = "run-run_1"


class World:
    """What a feed looks at."""

    def __init__(self, root: Path, poll_seconds: float = 60) -> None:
        self.store, self.tail = FolderStore(root), MemoryTail()
        self.store.create()
        self.log = ScriptedLog(RUN, self.store, self.tail)
        self.queries: list[int] = []
        self.down = False
        self.closed_at: int | None = None
        self.deleted = False
        self.begun = True
        self.max_bytes = 1_000_000
        self.feeds = Feeds(
            query=self.query, read_state=self.read_state, store=self.store, tail=self.tail, poll_seconds=poll_seconds
        )

    async def query(self, workflow_id: str, query: EventsQuery) -> EventsPage:
        assert workflow_id == RUN
        self.queries.append(query.after)
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("no worker")
        return self.log.log.read(query.model_copy(update={"max_bytes": self.max_bytes}))

    async def read_state(self, workflow_id: str) -> LogState:
        if self.deleted:
            raise NotFound("gone")
        return LogState(self.closed_at, self.begun)

    def close(self, *, hint: bool = True) -> None:
        self.closed_at = self.log.archive()
        if hint:
            self.tail.send(RUN, b'{"closed":true}')

    async def read_all(self, after: int = 0, form: Form = "ndjson", types: frozenset[str] | None = None) -> bytes:
        """What a client gets until its stream ends."""
        got = []
        async with self.feeds.open(RUN) as feed:
            while (piece := await feed.read(after, form, types)) is not None:
                got.append(piece.body)
                after = piece.last
        return b"".join(got)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.feeds.start()
    yield world
    await world.feeds.stop()
    assert len(world.feeds) == 0
    assert world.tail.watched == set()


def unzstd(frames: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(frames)


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


async def collect(feed: Feed, got: list[bytes], after: int = 0, form: Form = "ndjson") -> None:
    while (piece := await feed.read(after, form)) is not None:
        got.append(piece.body)
        after = piece.last


async def test_every_reader_gets_the_same_bytes_live_and_later(world: World) -> None:
    world.log.write("before", "anybody")
    live = [asyncio.create_task(world.read_all()) for _ in range(3)]
    stored = asyncio.create_task(world.read_all(form="zstd"))
    await until(lambda: RUN in world.tail.watched and world.queries)
    for number in range(50):
        world.log.write(f"line {number}")
        if number % 10 == 0:
            world.log.write(*(f"bulk {number} {line}" for line in range(3000)), segment=True)
        if number % 7 == 0:
            await asyncio.sleep(0)
    late = asyncio.create_task(world.read_all())
    await asyncio.sleep(0)
    world.close()
    for reader in (*live, late):
        assert await reader == world.log.bytes
    assert unzstd(await stored) == world.log.bytes
    assert unzstd(await world.read_all(form="zstd")) == world.log.bytes
    queries = len(world.queries)
    assert await world.read_all() == world.log.bytes
    assert len(world.queries) == queries  # a closed log is never queried
    assert events.verify(world.log.bytes.splitlines())[0] == world.closed_at


async def test_many_clients_cost_one_stream_of_queries(world: World) -> None:
    readers = [asyncio.create_task(world.read_all()) for _ in range(200)]
    await until(lambda: len(world.feeds) == 1 and world.queries)
    for number in range(100):
        world.log.write(f"line {number}")
        await asyncio.sleep(0)
    world.close()
    assert {await reader for reader in readers} == {world.log.bytes}
    assert len(world.queries) <= 2


async def test_a_hint_is_shown_without_asking(world: World) -> None:
    async with world.feeds.open(RUN) as feed:
        await until(lambda: world.queries)
        await asyncio.sleep(0)
        reading = asyncio.create_task(feed.read(0, "sse"))
        await asyncio.sleep(0)
        world.log.write("hello")
        for _ in range(3):  # turns of the loop, no time
            await asyncio.sleep(0)
        assert reading.done()
        piece = reading.result()
        assert piece is not None
        assert piece.body == events.sse(world.log.bytes)
        assert len(world.queries) == 1


async def test_a_lost_hint_is_found_by_the_next_one(world: World) -> None:
    got: list[bytes] = []
    async with world.feeds.open(RUN) as feed:
        await until(lambda: world.queries)
        task = asyncio.create_task(collect(feed, got))
        world.log.write("one")
        world.log.write("lost", hint=False)
        world.log.write("two")
        await until(lambda: b"".join(got) == world.log.bytes)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_with_all_hints_lost_the_log_is_polled(tmp_path: Path) -> None:
    world = World(tmp_path, poll_seconds=0.01)
    world.tail.lose = True
    await world.feeds.start()
    reader = asyncio.create_task(world.read_all())
    for number in range(5):
        world.log.write(f"line {number}")
        await asyncio.sleep(0.02)
    world.close()
    assert await reader == world.log.bytes
    await world.feeds.stop()


async def test_hints_that_make_no_sense_do_no_harm(world: World) -> None:
    async with world.feeds.open(RUN) as feed:
        await until(lambda: world.queries)
        world.log.write("one")
        before = world.log.bytes
        for message in (
            b"", b"[]", b"null", b"{}", b"\xff", b'{"batch": 1}', b'{"batch": {"first": "x"}}',
            # doubled, empty, from a writer that was replaced
            orjson.dumps({"batch": {"source": "s", "epoch": 1, "n": 1, "first": 1, "last": 1, "hash": "", "lines": "x"}}),
            orjson.dumps({"batch": {"source": "s", "epoch": 1, "n": 1, "first": 2, "last": 1, "hash": ""}}),
            orjson.dumps({"batch": {"source": "s", "epoch": 0, "n": 1, "first": 2, "last": 2, "hash": "", "lines": "x"}}),
        ):  # fmt: skip
            feed.hint(message)
        piece = await feed.read(0, "ndjson")
        assert piece is not None
        assert (piece.body, piece.last) == (before, 1)


async def test_entries_that_overlap_are_cut(world: World) -> None:
    world.log.write("one", "two", "three", hint=False)
    lines = world.log.bytes
    first_two = b"".join(lines.splitlines(keepends=True)[:2]).decode()
    world.down = True
    async with world.feeds.open(RUN) as feed:
        batch = Batch(source="s", epoch=1, n=1, first=1, last=2, hash="", lines=first_two)
        feed.hint(orjson.dumps({"batch": batch.model_dump()}))
        world.down = False
        await feed.refresh()
        piece = await feed.read(0, "ndjson")
        assert piece is not None
        assert (piece.body, piece.last) == (lines, 3)


async def test_large_logs_come_in_pages(world: World) -> None:
    for number in range(100):
        world.log.write(f"line {number}" + "x" * 500)
    world.max_bytes = 3000
    got: list[bytes] = []
    async with world.feeds.open(RUN) as feed:
        task = asyncio.create_task(collect(feed, got))
        await until(lambda: b"".join(got) == world.log.bytes)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert len(world.queries) > 10


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("types", [None, frozenset({"artifact", "run.completed"})])
async def test_resuming_anywhere_gives_the_rest(world: World, closed: bool, types: frozenset[str] | None) -> None:
    for number in range(5):
        world.log.write("a", "b")
        world.log.write(*(f"bulk {line}" for line in range(5)), segment=True)
        world.log.write(f"{number}.md", type="artifact")
    if closed:
        world.close()
    lines = world.log.bytes.splitlines(keepends=True)
    for after in range(len(lines)):
        wanted = [
            line for line in lines[after:] if types is None or b'"type":"artifact"' in line or b"run.comp" in line
        ]
        form: Form
        for form in ("ndjson", "sse", "zstd"):
            got: list[bytes] = []
            position = after
            async with world.feeds.open(RUN) as feed:
                while position < len(lines):
                    piece = await feed.read(position, form, types)
                    assert piece is not None
                    got.append(piece.body)
                    position = piece.last
            expected = b"".join(wanted)
            match form:
                case "sse":
                    expected = events.sse(expected)
                case "zstd":
                    got = [unzstd(b"".join(got))]
            assert b"".join(got) == expected


async def test_a_client_that_reads_slowly_holds_nobody_up_and_holds_nothing(world: World) -> None:
    world.feeds.blocks = Blocks(capacity_bytes=200_000)
    async with world.feeds.open(RUN) as slow:
        await until(lambda: world.queries)
        fast = asyncio.create_task(world.read_all())
        await asyncio.sleep(0)
        first = None
        for number in range(30):
            world.log.write(*(f"{number} {line} " + "x" * 100 for line in range(500)), segment=True)
            if number == 0:
                first = await slow.read(0, "ndjson")
            await asyncio.sleep(0)
        world.close()
        assert await fast == world.log.bytes  # while the slow one has had one piece
        assert first is not None
        got, after = first.body, first.last
        while (piece := await slow.read(after, "ndjson")) is not None:
            assert len(piece.body) < 200_000
            got += piece.body
            after = piece.last
        assert got == world.log.bytes


async def test_segments_that_went_into_the_archive_are_read_there(world: World) -> None:
    async with world.feeds.open(RUN) as feed:
        await until(lambda: world.queries)
        world.log.write("in line")
        world.log.write(*(f"bulk {line}" for line in range(10)), segment=True)
        world.close(hint=False)  # the feed has not heard of it and points to a segment that is gone
        piece = await feed.read(1, "ndjson")
        assert piece is not None
        assert piece.body.startswith(b'{"seq":2,')


async def test_with_the_worker_down_streams_stay_open_and_go_on(tmp_path: Path) -> None:
    world = World(tmp_path, poll_seconds=0.01)
    world.down = True
    world.log.write("before")
    await world.feeds.start()
    reader = asyncio.create_task(world.read_all())
    await until(lambda: len(world.queries) > 2)
    assert not reader.done()
    world.down = False
    world.close()
    assert await reader == world.log.bytes
    await world.feeds.stop()


async def test_positions(world: World) -> None:
    world.log.write("one", "two")
    async with world.feeds.open(RUN) as feed:
        assert await feed.starts_after(0)
        assert await feed.starts_after(2)
        with pytest.raises(InvalidCursor):
            await feed.starts_after(3)
        world.log.write("three", hint=False)  # another process may have shown it: the log is asked
        assert await feed.starts_after(3)
        world.close(hint=False)
        assert await feed.starts_after(3)
    async with world.feeds.open(RUN) as feed:
        assert await feed.starts_after(3)
        assert not await feed.starts_after(4)
        with pytest.raises(InvalidCursor):
            await feed.starts_after(5)


async def test_a_position_that_nobody_can_check_yet_is_checked_later(tmp_path: Path) -> None:
    world = World(tmp_path, poll_seconds=0.01)
    world.log.write("one", "two")
    world.down = True
    await world.feeds.start()
    async with world.feeds.open(RUN) as feed:
        assert await feed.starts_after(2)
        assert await feed.starts_after(9)
        good, bad = asyncio.create_task(feed.read(1, "ndjson")), asyncio.create_task(feed.read(9, "ndjson"))
        await asyncio.sleep(0.03)
        assert not good.done()
        assert not bad.done()
        world.down = False
        piece = await good
        assert piece is not None
        assert piece.last == 2
        assert await bad is None
    await world.feeds.stop()


async def test_a_log_that_is_deleted_ends_its_streams(world: World) -> None:
    reader = asyncio.create_task(world.read_all())
    await until(lambda: world.queries)
    world.log.write("one")
    world.deleted = True
    world.tail.send(RUN, b'{"closed":true}')
    assert await reader == world.log.bytes


async def test_a_closed_log_that_is_no_longer_kept(world: World) -> None:
    world.log.write("one")
    world.close()
    world.store.delete_prefix("runs/run_1/")
    async with world.feeds.open(RUN) as feed:
        with pytest.raises(NotFound):
            await feed.starts_after(0)
        assert not await feed.starts_after(2)


async def test_a_run_that_was_closed_without_a_log(world: World) -> None:
    world.closed_at = 0
    async with world.feeds.open(RUN) as feed:
        assert not await feed.starts_after(0)


async def test_stopping_ends_streams_in_order(world: World) -> None:
    world.log.write("one")
    reader = asyncio.create_task(world.read_all())
    await until(lambda: world.queries)
    world.feeds.end_streams()
    assert await reader == world.log.bytes
    assert await world.read_all() == b""


async def test_waiting_for_the_end_asks_no_worker(world: World) -> None:
    async def wait() -> None:
        async with world.feeds.open(RUN, reading=False) as feed:
            await feed.closed()

    waiting = [asyncio.create_task(wait()) for _ in range(3)]
    await until(lambda: RUN in world.tail.watched)
    world.log.write("one")
    world.close()
    await asyncio.gather(*waiting)
    assert world.queries == []


async def test_a_reader_may_join_those_who_wait(world: World) -> None:
    async with world.feeds.open(RUN, reading=False) as feed:
        await until(lambda: RUN in world.tail.watched)
        reader = asyncio.create_task(world.read_all())
        await until(lambda: world.queries)
        world.log.write("one")
        world.close()
        await feed.closed()
        assert await reader == world.log.bytes
        assert await world.read_all() == world.log.bytes


async def test_a_tail_that_fails_costs_latency_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, poll_seconds=0.01)

    async def refuse(topic: str) -> None:
        raise ConnectionError("no bus")

    monkeypatch.setattr(world.tail, "watch", refuse)
    monkeypatch.setattr(world.tail, "unwatch", refuse)
    await world.feeds.start()
    reader = asyncio.create_task(world.read_all())
    world.log.write("one")
    world.close()
    assert await reader == world.log.bytes
    await world.feeds.stop()


async def test_a_client_that_leaves_takes_nothing_from_the_others(world: World) -> None:
    world.log.write(*(f"bulk {line}" for line in range(20_000)), segment=True)
    readers = [asyncio.create_task(world.read_all()) for _ in range(5)]
    await until(lambda: world.queries)
    await asyncio.sleep(0)
    readers[0].cancel()  # it may be the one that loads the segment
    world.close()
    with contextlib.suppress(asyncio.CancelledError):
        await readers[0]
    for reader in readers[1:]:
        assert await reader == world.log.bytes


async def test_a_store_that_is_down_is_said_before_a_closed_log_is_streamed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.log.write("one")
    world.close()

    def broken(*_: object) -> None:
        raise Unavailable("the store is down")

    monkeypatch.setattr(world.store, "open", broken)
    async with world.feeds.open(RUN) as feed:
        with pytest.raises(Unavailable):
            await feed.starts_after(0)


async def test_a_log_that_has_not_begun_is_not_queried(world: World) -> None:
    world.begun = False
    reader = asyncio.create_task(world.read_all())
    await until(lambda: RUN in world.tail.watched)
    world.log.write("by the tail")
    assert world.queries == []
    world.begun = True
    world.close()
    assert await reader == world.log.bytes
