"""A follower goes on where another one was: what the log knows already is not told again, and counts all the same."""

import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, cast

import pytest

from activities import follow as following
from activities.follow import Follower
from activities.log_writer import LogWriter
from activities.run_records import RunRecords
from crewship import attached
from crewship.contracts import EndFacts, Head, ResultFacts
from crewship.engine import Attachment, ContainerState, Engine
from crewship.events import GENESIS, Draft
from crewship.redaction import Redactor

NONCE = "n0nce"
HEAD = Head(next_seq=7, hash=GENESIS, epoch=2, acknowledged={"container/1": 4})
END = {"n": 5, "k": NONCE, "at": 1_700_000_000_000, "t": "end", "exit_code": 0, "signal": None, "cgroup": {}}


class Container:
    """Says what is left to say, then has ended."""

    def __init__(self, *frames: dict[str, Any]) -> None:
        self._output = b"".join(json.dumps(frame).encode() + b"\n" for frame in frames)
        self.told: list[dict[str, Any]] = []

    def attach(self, container: str) -> Attachment:
        return self

    def read(self) -> tuple[Literal["stdout", "stderr"], bytes] | None:
        output, self._output = self._output, b""
        return ("stdout", output) if output else None

    def write(self, data: bytes) -> None:
        self.told += [json.loads(line) for line in data.splitlines()]

    def close(self) -> None:
        pass

    def wait(self, container: str, timeout_seconds: float) -> bool:
        return True


class Written:
    """A log writer that keeps what it is given."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def write(self, drafts: list[Any], n: int, **more: Any) -> None:
        self.calls.append({"n": n, **more})


class Silent(Container):
    """Its attachment says nothing and does not end, though the container has."""

    def __init__(self) -> None:
        super().__init__()
        self._closed = threading.Event()

    def read(self) -> None:
        self._closed.wait()

    def close(self) -> None:
        self._closed.set()

    def inspect(self, container: str) -> ContainerState:
        return ContainerState("c", "c", "exited", 0, False, {}, "")


def follow(container: Container, head: Head) -> tuple[Follower, Written]:
    written = Written()
    follower = a_follower(container, head)
    follower.follow(cast(LogWriter, written))
    return follower, written


def a_follower(container: Container, head: Head) -> Follower:
    return Follower(
        engine=cast(Engine, container),
        container="c",
        nonces=[NONCE],
        deployment_id="dep_1",
        redactor=Redactor({}),
        records=cast(RunRecords, None),
        head=head,
        source="container/1",
        epoch=2,
        log_limit_bytes=1000,
    )


def test_an_end_that_is_in_the_log_is_the_end() -> None:
    """The attempt before took the end frame, then had to let go; the supervisor has nothing more to say."""
    end = EndFacts(exit_code=0, ok=True)
    container = Container()
    follower, _ = follow(container, HEAD.model_copy(update={"end": end}))
    assert follower.end == end
    assert [(command["op"], command["n"]) for command in container.told] == [("ack", 4), ("replay", 4)]


def test_a_result_that_is_in_the_log_goes_with_the_end_that_comes() -> None:
    result = ResultFacts(ok=False, code="user_error", message="no")
    follower, written = follow(Container(END), HEAD.model_copy(update={"result": result}))
    assert follower.end is not None
    assert (follower.end.ok, follower.end.error_code, follower.end.exit_code) == (False, "user_error", 0)
    assert [(call["n"], call["end"]) for call in written.calls] == [(5, follower.end)]


def test_an_attachment_that_stays_open_behind_an_ended_container_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "QUIET_SECONDS", 0.0)
    follower = a_follower(Silent(), HEAD)
    with ThreadPoolExecutor(1) as threads:
        followed = threads.submit(follower.follow, cast(LogWriter, Written()))
        while not followed.done():
            follower.look()
            threading.Event().wait(0.01)
        followed.result()


class Lingering(Silent):
    """Says what it has to say, and ends when that was acknowledged."""

    def __init__(self, *frames: dict[str, Any]) -> None:
        super().__init__()
        self._output = b"".join(json.dumps(frame).encode() + b"\n" for frame in frames)
        self.is_closed = False

    def read(self) -> tuple[Literal["stdout", "stderr"], bytes] | None:
        output, self._output = self._output, b""
        assert output, "nobody was to wait for more"
        return "stdout", output

    def wait(self, container: str, timeout_seconds: float) -> bool:
        return bool(self.told)

    def close(self) -> None:
        self.is_closed = True


def test_a_container_that_has_told_enough_is_left_until_that_is_durable() -> None:
    container = Lingering(END)
    follower, written = a_follower(container, HEAD), Written()
    follower.is_enough = lambda end: end.exit_code == 0
    follower.follow(cast(LogWriter, written))
    assert follower.left_early
    assert follower.end is not None
    (call,) = written.calls
    assert call["is_last"]
    ack = {"op": "ack", "n": 5, "epoch": 2}
    assert ack not in container.told  # its supervisor stays for as long as it is not told that the end is durable
    assert not container.is_closed
    follower.dismiss()
    assert container.told[-1] == ack
    assert container.is_closed


def test_a_container_whose_end_tells_more_is_waited_for() -> None:
    follower, written = a_follower(Container(END), HEAD), Written()
    follower.is_enough = lambda end: end.exit_code != 0
    follower.follow(cast(LogWriter, written))
    follower.acknowledge(5)
    assert not follower.left_early


class Told(Written):
    """One that keeps the drafts, too."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[str] = []

    def write(self, drafts: list[Any], n: int, **more: Any) -> None:
        super().write(drafts, n, **more)
        self.types += [getattr(draft, "type", "log") for draft in drafts]

    def tell(self, drafts: list[Any]) -> None:
        self.types += [draft.type for draft in drafts]


def test_the_first_event_of_a_run_is_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    started = {"n": 5, "k": NONCE, "at": 1_700_000_000_000, "t": "started"}
    written = Told()
    writer = cast(LogWriter, written)
    follower = a_follower(Container(started, {**END, "n": 6}), HEAD)
    monkeypatch.setattr(follower, "_records", Records())
    denied = Draft("2026-01-31T09:05:00.123Z", "network.denied", {"host": "10.0.0.1", "port": 80})
    follower.tell(denied, writer)
    assert written.types == []
    follower.follow(writer)
    follower.tell(denied, writer)
    assert written.types == ["run.started", "network.denied", "network.denied"]


class Records:
    def started(self, at_ms: int) -> "Future[None]":
        done: Future[None] = Future()
        done.set_result(None)
        return done


def test_each_field_of_the_isolation_has_its_source() -> None:
    inside, outside = {"uid": 10001, "seccomp": 2}, {"runtime": "runc", "network": {"mode": "none"}, "loosened": []}
    told = following.isolation(inside, outside)
    assert told == {
        "source": "inside",
        **inside,
        **outside,
        "sources": {
            "uid": "inside",
            "seccomp": "inside",
            "runtime": "engine",
            "network": "guard",
            "loosened": "settings",
        },
    }
    assert following.isolation(None, {})["sources"] == {}
