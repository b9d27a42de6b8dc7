"""Both tails pass the same tests: hints arrive, and nothing that happens to a tail ever holds up who publishes or watches."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from crewship.redis_tail import RedisSubscriber
from crewship.tail import TailPublisher, TailSubscriber
from crewship.tails import open_publisher, open_subscriber
from tests.fixtures.redis import Redis, make_redis, redis_server  # noqa: F401
from tests.fixtures.servers import free_port

PATIENCE_SECONDS = 15.0


class Inbox:
    """What a subscriber delivered; to be waited for."""

    def __init__(self) -> None:
        self.hints: list[tuple[str, bytes]] = []
        self._changed = asyncio.Event()

    def __call__(self, topic: str, message: bytes) -> None:
        self.hints.append((topic, message))
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def hears(self, publisher: TailPublisher, topic: str, message: bytes) -> None:
        """Publish until it arrives: hints may be lost, so a test that waits for one repeats it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (topic, message) not in self.hints:
                publisher.publish(topic, message)
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.1)
                except TimeoutError:
                    continue


@pytest.fixture(params=["unix", "unix, long path", pytest.param("redis", marks=pytest.mark.server)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "unix":
            return f"unix://{tmp_path}/new/tail.sock"
        case "unix, long path":
            return f"unix://{tmp_path}/{'long%20' * 30}/tail.sock"
    return str(request.getfixturevalue("redis_server").url)


@pytest.fixture
def publisher(url: str) -> Iterator[TailPublisher]:
    publisher = open_publisher(url)
    yield publisher
    publisher.close()


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[tuple[TailSubscriber, Inbox]]:
    subscriber, inbox = open_subscriber(url), Inbox()
    await subscriber.start(inbox)
    try:
        yield subscriber, inbox
    finally:
        await subscriber.stop()


async def test_hints_of_watched_topics_arrive_in_order_and_whole(url: str, publisher: TailPublisher) -> None:
    async with listening(url) as (subscriber, inbox):
        await subscriber.watch("run-run_1")
        await inbox.hears(publisher, "run-run_1", b"ready")
        inbox.hints.clear()
        messages = [b"", b"one", b"\0with\0zeros\n", b"\xff\xfe", b"x" * 65_536, b"last"]
        for message in messages:
            publisher.publish("run-run_1", message)
        await inbox.until(lambda: len(inbox.hints) == len(messages))
        assert inbox.hints == [("run-run_1", message) for message in messages]


async def test_only_watched_topics_arrive(url: str, publisher: TailPublisher) -> None:
    async with listening(url) as (subscriber, inbox):
        await subscriber.watch("a")
        await subscriber.watch("b")
        await inbox.hears(publisher, "b", b"ready")
        await subscriber.unwatch("a")
        await subscriber.unwatch("never")
        await inbox.hears(publisher, "b", b"a is not watched any more")
        inbox.hints.clear()
        publisher.publish("a", b"1")
        publisher.publish("c", b"2")
        publisher.publish("b", b"3")
        await inbox.until(lambda: ("b", b"3") in inbox.hints)
        assert inbox.hints == [("b", b"3")]
        await subscriber.watch("a")
        await inbox.hears(publisher, "a", b"again")


async def test_what_is_too_long_is_dropped(url: str, publisher: TailPublisher) -> None:
    async with listening(url) as (subscriber, inbox):
        await subscriber.watch("t")
        await inbox.hears(publisher, "t", b"ready")
        publisher.publish("t", b"x" * 65_537)
        publisher.publish("t", b"after")
        await inbox.until(lambda: ("t", b"after") in inbox.hints)
        assert not any(len(message) > 65_536 for _, message in inbox.hints)


async def test_several_publishers_and_threads(url: str, publisher: TailPublisher) -> None:
    second = open_publisher(url)
    try:
        async with listening(url) as (subscriber, inbox):
            await subscriber.watch("t")
            await inbox.hears(publisher, "t", b"first")
            await inbox.hears(second, "t", b"second")
            threads = [
                threading.Thread(target=one.publish, args=("t", b"%d" % number))
                for number, one in enumerate([publisher, second] * 2)
            ]
            for thread in threads:
                thread.start()
            await inbox.until(lambda: {b"0", b"1", b"2", b"3"} <= {message for _, message in inbox.hints})
            for thread in threads:
                thread.join()
    finally:
        second.close()


async def test_a_deliver_that_fails_does_not_end_the_tail(url: str, publisher: TailPublisher) -> None:
    inbox = Inbox()

    def deliver(topic: str, message: bytes) -> None:
        inbox(topic, message)
        if message == b"bad":
            raise ValueError("cannot take this")

    subscriber = open_subscriber(url)
    await subscriber.start(deliver)
    try:
        await subscriber.watch("t")
        await inbox.hears(publisher, "t", b"bad")
        await inbox.hears(publisher, "t", b"good")
    finally:
        await subscriber.stop()


def test_publishing_to_nobody_neither_waits_nor_raises(url: str, publisher: TailPublisher) -> None:
    for _ in range(5000):
        publisher.publish("t", b"x" * 1000)
    publisher.close()
    publisher.publish("t", b"after the end")
    publisher.close()


async def test_publishing_to_a_subscriber_that_does_not_read_does_not_wait(url: str, publisher: TailPublisher) -> None:
    async with listening(url) as (subscriber, inbox):
        await subscriber.watch("t")
        await inbox.hears(publisher, "t", b"ready")
        for _ in range(20_000):  # the loop, and with it the subscriber, stands still meanwhile
            publisher.publish("t", b"x" * 1000)
        await inbox.hears(publisher, "t", b"and it goes on")


async def test_a_subscriber_may_stop_and_another_one_start(url: str, publisher: TailPublisher) -> None:
    for message in (b"first", b"second"):
        async with listening(url) as (subscriber, inbox):
            await subscriber.watch("t")
            await inbox.hears(publisher, "t", message)
    await subscriber.stop()


class TestSocket:
    async def test_a_stale_socket_is_replaced_and_a_successor_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "tail.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as crashed:
            crashed.bind(str(path))
        url = f"unix://{path}"
        first, second = open_subscriber(url), open_subscriber(url)
        await first.start(Inbox())
        inbox = Inbox()
        await second.start(inbox)
        await second.watch("t")
        await first.stop()
        assert path.exists()
        publisher = open_publisher(url)
        try:
            await inbox.hears(publisher, "t", b"x")
        finally:
            publisher.close()
            await second.stop()
        assert not path.exists()

    async def test_only_its_owner_may_send(self, tmp_path: Path) -> None:
        async with listening(f"unix://{tmp_path}/tail.sock"):
            assert (tmp_path / "tail.sock").stat().st_mode & 0o777 == 0o600

    def test_a_folder_that_is_not_there_is_nobody(self, tmp_path: Path) -> None:
        for path in (tmp_path / "no" / "tail.sock", tmp_path / ("x" * 120) / "tail.sock"):
            publisher = open_publisher(f"unix://{path}")
            publisher.publish("t", b"x")
            publisher.close()


@pytest.mark.server
class TestRedis:
    async def test_both_sides_go_on_after_a_crash_of_the_server(self, tmp_path: Path) -> None:
        redis = make_redis(tmp_path)
        redis.server.start()
        publisher = open_publisher(redis.url)
        try:
            async with listening(redis.url) as (subscriber, inbox):
                await subscriber.watch("before")
                await inbox.hears(publisher, "before", b"1")
                redis.server.kill()
                publisher.publish("before", b"lost")
                began = time.monotonic()
                await subscriber.watch("meanwhile")
                await subscriber.unwatch("nothing")
                assert time.monotonic() - began < PATIENCE_SECONDS
                redis.server.start()
                await inbox.hears(publisher, "before", b"2")
                await inbox.hears(publisher, "meanwhile", b"3")
        finally:
            publisher.close()
            redis.server.kill()

    async def test_a_server_that_is_not_there_holds_nobody_up(self) -> None:
        url = f"redis://:secret@127.0.0.1:{free_port()}/0"
        publisher = open_publisher(url)
        async with listening(url) as (subscriber, _):
            await subscriber.watch("t")
            for _ in range(5000):
                publisher.publish("t", b"x")
        publisher.close()

    async def test_a_watch_is_confirmed_before_it_returns(self, request: pytest.FixtureRequest) -> None:
        """So that what is published after it is never missed: a reader watches first and queries then."""
        url = request.getfixturevalue("redis_server").url
        publisher = open_publisher(url)
        try:
            async with listening(url) as (subscriber, inbox):
                assert isinstance(subscriber, RedisSubscriber)
                await subscriber.watch("warm")
                await inbox.hears(publisher, "warm", b"up")
                for number in range(50):
                    await subscriber.watch(f"t{number}")
                    publisher.publish(f"t{number}", b"right after")
                    await inbox.until(lambda number=number: (f"t{number}", b"right after") in inbox.hints)  # type: ignore[misc]
        finally:
            publisher.close()


async def test_off_is_a_tail_of_which_nothing_comes() -> None:
    publisher = open_publisher("off")
    async with listening("off") as (subscriber, inbox):
        await subscriber.watch("t")
        publisher.publish("t", b"x")
        await subscriber.unwatch("t")
    publisher.close()
    assert inbox.hints == []


@pytest.mark.parametrize("url", ["", "on", "unix:tail.sock", "unix://host/x", "amqp://user:secret@host"])
def test_a_url_that_names_no_tail_is_not_repeated(url: str) -> None:
    for open_end in (open_publisher, open_subscriber):
        with pytest.raises(ValueError, match="the tail's URL is neither") as caught:
            open_end(url)
        assert "secret" not in str(caught.value)
