"""The log writer against a log in memory that refuses, repeats and goes away as Temporal does."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from activities import log_writer
from activities.log_writer import BATCH_BYTES, FIRST_SECONDS, INLINE_BYTES, PENDING_BYTES, LogWriter, WorkflowGone
from crewship import archive
from crewship.contracts import Batch, EndFacts, EventsQuery
from crewship.errors import NotFound, Unavailable
from crewship.events import Draft, LogLines, parse, verify
from crewship.folder_storage import FolderStore
from crewship.log import EventLog
from crewship.storage import ObjectStore

AT = "2026-01-31T09:05:00.123Z"


class Bridge:
    """The workflow's side: an EventLog behind signals that may fail."""

    def __init__(self) -> None:
        self.log = EventLog()
        self.failures: list[Exception] = []
        self.batches: list[Batch] = []
        self.hold = threading.Event()
        self.hold.set()

    def signal(self, workflow_id: str, name: str, argument: Any) -> None:
        self.hold.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(argument)
        self.log.append(argument)


class Tail:
    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def publish(self, topic: str, message: bytes) -> None:
        self.messages.append(message)

    def close(self) -> None: ...


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    made = FolderStore(tmp_path)
    made.create()
    return made


@pytest.fixture
def bridge() -> Bridge:
    return Bridge()


def writer(bridge: Bridge, store: ObjectStore, durable: list[int] | None = None, tail: Tail | None = None) -> LogWriter:
    return LogWriter(
        bridge,  # type: ignore[arg-type]
        store,
        tail or Tail(),
        workflow_id="run-run_1",
        source="container/1",
        epoch=1,
        head=bridge.log.head(),
        on_durable=durable.append if durable is not None else None,
    )


def content(log: EventLog, store: ObjectStore) -> bytes:
    return b"".join(
        archive.read_segment(store, entry.segment) if entry.segment else (entry.lines or "").encode()
        for entry in log.read(EventsQuery(max_bytes=10**9)).entries
    )


def test_events_are_in_order_and_chained(bridge: Bridge, store: FolderStore) -> None:
    durable: list[int] = []
    log = writer(bridge, store, durable)
    for n in range(1, 51):
        log.write([LogLines(AT, [f"line {n}", "and one"], "info", "stdout")], n)
    log.write([Draft(AT, "run.started", {})], 51, urgent=True)
    log.close()
    lines = content(bridge.log, store)
    assert [e.seq for e in parse(lines)] == list(range(1, 102))
    assert verify(lines.splitlines())[0] == 101
    assert durable[-1] == 51
    assert bridge.log.acknowledged == {"container/1": 51}


def test_what_comes_while_a_signal_is_under_way_becomes_one_batch(bridge: Bridge, store: FolderStore) -> None:
    bridge.hold.clear()
    log = writer(bridge, store)
    for n in range(1, 101):
        log.write([Draft(AT, "custom", {"value": n})], n, urgent=True)
    bridge.hold.set()
    log.close()
    assert len(bridge.batches) <= 3
    assert bridge.log.next_seq == 101


def test_a_frame_that_shows_nothing_goes_along_with_the_next_that_does(
    bridge: Bridge, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "SILENT_SECONDS", 3600.0)
    durable: list[int] = []
    log = writer(bridge, store, durable)
    for n in (1, 2):
        log.write([], n, urgent=True)
    log.write([Draft(AT, "run.started", {})], 3, urgent=True)
    log.flush()
    log.write([], 4, urgent=True)
    log.write([], 5, urgent=True, end=EndFacts(exit_code=0))
    log.close()
    assert [batch.n for batch in bridge.batches] == durable == [3, 5]


def test_a_frame_that_shows_nothing_is_acknowledged_all_the_same(bridge: Bridge, store: FolderStore) -> None:
    acknowledged = threading.Event()
    log = LogWriter(
        bridge, store, Tail(), workflow_id="run-run_1", source="container/1", epoch=1, head=bridge.log.head(),
        on_durable=lambda n: acknowledged.set(),
    )  # type: ignore[arg-type]  # fmt: skip
    log.write([], 1, urgent=True)
    assert acknowledged.wait(30)
    log.close()


def test_a_short_run_is_one_batch(bridge: Bridge, store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "FIRST_SECONDS", 3600)
    log = writer(bridge, store)
    log.write([Draft(AT, "run.started", {})], 1, is_first=True)
    log.write([LogLines(AT, ["first"], "info", "stdout")], 2)
    log.write([], 3, urgent=True)
    assert not bridge.batches
    log.write([], 4, urgent=True, end=EndFacts(ok=True))
    while not bridge.batches:
        threading.Event().wait(0.002)
    log.close()
    assert [(batch.first, batch.last, batch.n) for batch in bridge.batches] == [(1, 2, 4)]


def test_what_a_run_begins_with_goes_alone_when_nothing_comes(bridge: Bridge, store: FolderStore) -> None:
    log = writer(bridge, store)
    began = time.monotonic()
    log.write([Draft(AT, "run.started", {})], 1, is_first=True)
    while not bridge.batches:
        threading.Event().wait(0.002)
    assert time.monotonic() - began >= FIRST_SECONDS
    log.close()
    assert [(batch.first, batch.last, batch.n) for batch in bridge.batches] == [(1, 1, 1)]


def test_what_a_run_ends_with_is_for_whoever_asks(bridge: Bridge, store: FolderStore) -> None:
    durable: list[int] = []
    told: list[int] = []
    bridge.hold.clear()
    log = writer(bridge, store, durable)
    log.write([Draft(AT, "run.started", {})], 1, urgent=True)
    while not log._sending:
        threading.Event().wait(0.002)
    log.write([LogLines(AT, ["first"], "info", "stdout")], 2)
    log.write([], 3, urgent=True, is_last=True, end=EndFacts(ok=True), before=lambda: told.append(3))
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(log.last)
        assert not asked.done()  # what is under way goes before
        bridge.hold.set()
        last = asked.result(10)
    log.close()
    assert [(batch.first, batch.last, batch.n) for batch in bridge.batches] == [(1, 1, 1)]
    assert durable == [1]
    assert told == [3]
    assert last is not None
    assert (last.first, last.last, last.n, last.end) == (2, 2, 3, EndFacts(ok=True))
    assert bridge.log.append(last)
    assert verify(content(bridge.log, store).splitlines())[0] == 2


def test_too_much_to_end_with_is_signalled(bridge: Bridge, store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "BATCH_BYTES", 1000)
    durable: list[int] = []
    log = writer(bridge, store, durable)
    log._held_until = math.inf
    log.write([LogLines(AT, ["x" * 600], "info", "stdout")], 1)
    log.write([LogLines(AT, ["y" * 600], "info", "stdout")], 2, is_last=True, end=EndFacts(ok=True))
    assert log.last() is None
    log.close()
    assert durable[-1] == 2
    assert bridge.log.end == EndFacts(ok=True)


def test_a_large_batch_is_a_segment_and_the_signal_a_pointer(bridge: Bridge, store: FolderStore) -> None:
    log = writer(bridge, store)
    log.write([LogLines(AT, ["x" * 100] * 1000, "info", "stdout")], 1)
    log.close()
    assert bridge.batches[0].lines is None
    assert bridge.batches[0].segment is not None
    assert len(content(bridge.log, store)) > INLINE_BYTES
    assert verify(content(bridge.log, store).splitlines())[0] == 1000


def test_a_signal_that_fails_is_repeated_until_it_is_through(bridge: Bridge, store: FolderStore) -> None:
    bridge.failures = [Unavailable("down"), Unavailable("down")]
    log = writer(bridge, store)
    log.write([Draft(AT, "custom", {"value": 1})], 1, urgent=True)
    log.close()
    assert bridge.log.next_seq == 2


def test_a_workflow_that_is_gone_ends_the_writer(bridge: Bridge, store: FolderStore) -> None:
    bridge.failures = [NotFound("gone")]
    log = writer(bridge, store)
    log.write([Draft(AT, "custom", {"value": 1})], 1, urgent=True)
    with pytest.raises(WorkflowGone):
        log.close()


def test_a_full_writer_makes_its_source_wait(bridge: Bridge, store: FolderStore) -> None:
    bridge.hold.clear()
    log = writer(bridge, store)
    written: list[int] = []

    def flood() -> None:
        for n in range(1, 21):
            log.write([LogLines(AT, ["y" * 1_000_000], "info", "stdout")], n)
            written.append(n)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    assert len(written) * 1_000_000 < PENDING_BYTES + 2 * BATCH_BYTES
    bridge.hold.set()
    thread.join()
    log.close()
    assert bridge.log.next_seq == 21


def test_a_batch_without_events_still_acknowledges(bridge: Bridge, store: FolderStore) -> None:
    durable: list[int] = []
    tail = Tail()
    log = writer(bridge, store, durable, tail)
    log.write([], 7, urgent=True, end=EndFacts(exit_code=0, ok=True))
    log.close()
    assert durable == [7]
    assert bridge.log.end == EndFacts(exit_code=0, ok=True)
    assert bridge.log.next_seq == 1
    assert tail.messages == []


def test_a_successor_that_replays_gives_the_same_bytes(bridge: Bridge, store: FolderStore) -> None:
    """Rendering is a function of the frames: what two writers write of the same frames is the same."""
    first = writer(bridge, store)
    first.write([LogLines(AT, ["a", "b"], "info", "stdout")], 1)
    first.close()
    again = Bridge()
    second = writer(again, store)
    second.write([LogLines(AT, ["a"], "info", "stdout")], 1)
    second.flush()
    second.write([LogLines(AT, ["b"], "info", "stdout")], 2)
    second.close()
    assert content(bridge.log, store) == content(again.log, store)


def test_what_no_frame_gave_goes_along_with_the_last_one(bridge: Bridge, store: FolderStore) -> None:
    durable: list[int] = []
    log = writer(bridge, store, durable)
    log.write([LogLines(AT, ["a"], "info", "stdout")], 5)
    log.tell([Draft(AT, "network.denied", {"host": "10.0.0.1", "port": 80})])
    log.write([], 6)
    log.tell([Draft(AT, "network.denied", {"host": "10.0.0.2", "port": 80})])
    log.close()
    log.tell([Draft(AT, "network.denied", {"host": "10.0.0.3", "port": 80})])
    events = list(parse(content(bridge.log, store)))
    assert [event.type for event in events] == ["log", "network.denied", "network.denied"]
    assert bridge.log.acknowledged == {"container/1": 6}
    assert durable[-1] == 6
    assert max(batch.n for batch in bridge.batches) == bridge.batches[-1].n == 6


def test_what_has_to_be_done_before_is_done_before_it_is_durable(bridge: Bridge, store: FolderStore) -> None:
    """A frame that is durable does not come again, so what could not be written for it never would be."""

    def fails() -> None:
        raise Unavailable("The database cannot be reached")

    log = writer(bridge, store)
    log.write([Draft(AT, "run.started", {})], 1, urgent=True, before=fails)
    with pytest.raises(Unavailable):
        log.close()
    assert bridge.batches == []
