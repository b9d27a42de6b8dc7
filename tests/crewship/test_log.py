"""The log that a workflow holds: whatever writers do, it is gapless, without repeats, and the same for every reader."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from crewship.contracts import Batch, EndFacts, EventsQuery, ResultFacts, Segment
from crewship.events import GENESIS, Draft, parse, render, verify
from crewship.log import EventLog

AT = "2026-01-31T09:05:00.123Z"


def batch(log: EventLog, *messages: str, source: str = "container/1", n: int = 1, epoch: int = 0) -> Batch:
    """The next batch, as a writer makes it that has read the log's head."""
    head = log.head()
    drafts = [Draft(AT, "log", {"message": message}) for message in messages]
    lines, last, digest = render(drafts, head.next_seq, head.hash)
    return Batch(
        source=source, epoch=epoch, n=n, first=head.next_seq, last=last, hash=digest, lines=lines.decode() or None
    )


def content(log: EventLog, after: int = 0, max_bytes: int = 1_000_000, *, terminal: bool = False) -> list[str]:
    """What a reader gets that asks page by page."""
    messages: list[str] = []
    while True:
        page = log.read(EventsQuery(after=after, max_bytes=max_bytes, include_terminal=terminal))
        for entry in page.entries:
            assert entry.lines is not None
            for event in parse(entry.lines.encode()):
                if event.seq > after:
                    assert event.seq == after + 1
                    after = event.seq
                    messages.append(str(event.data.get("message", event.type)))
        if not page.more:
            return messages
        assert page.entries


def test_batches_are_taken_in_order_and_once() -> None:
    log = EventLog()
    first = batch(log, "a", "b", n=5)
    assert log.append(first)
    second = batch(log, "c", n=6)
    assert not log.append(first)
    assert log.append(second)
    assert not log.append(second)
    assert not log.append(first)
    assert content(log) == ["a", "b", "c"]
    head = log.head()
    assert (head.next_seq, head.acknowledged, head.hash) == (4, {"container/1": 6}, second.hash)


def test_a_batch_that_does_not_begin_where_the_log_ends_is_dropped() -> None:
    log, other = EventLog(), EventLog()
    other.append(batch(other, "x"))
    ahead = batch(other, "y")
    assert not log.append(ahead)
    assert log.head().acknowledged == {}
    assert content(log) == []


def test_a_writer_behind_the_fence_is_not_heard() -> None:
    log = EventLog()
    stale = batch(log, "stale", epoch=1)
    log.fence(2)
    assert not log.append(stale)
    assert log.append(batch(log, "fresh", epoch=2))
    log.fence(1)
    assert log.head().epoch == 2
    assert not log.append(batch(log, "still stale", epoch=1))
    assert log.append(batch(log, "later", epoch=3))
    assert content(log) == ["fresh", "later"]


def test_a_new_attempt_inherits_no_ending_and_no_writer() -> None:
    log = EventLog()
    ending = {"result": ResultFacts(ok=False, code="user_error"), "end": EndFacts(exit_code=1, ok=False)}
    assert log.append(batch(log, "a", n=9, epoch=3).model_copy(update=ending))
    log.begin_attempt(100)
    head = log.head()
    assert (head.result, head.end, head.epoch, head.next_seq) == (None, None, 100, 2)
    assert not log.append(batch(log, n=10, epoch=4).model_copy(update=ending))
    assert log.append(batch(log, "b", source="container/2", epoch=101))
    head = log.head()
    assert (head.result, head.end, head.acknowledged) == (None, None, {"container/1": 9, "container/2": 1})


def test_a_batch_without_events_moves_what_is_acknowledged_only() -> None:
    log = EventLog()
    log.append(batch(log, "a", n=1))
    end = EndFacts(exit_code=0, ok=True)
    assert log.append(batch(log, n=9).model_copy(update={"end": end}))
    head = log.head()
    assert (head.next_seq, head.acknowledged, head.end) == (2, {"container/1": 9}, end)
    assert log.append(batch(log, n=3))
    assert log.head().acknowledged == {"container/1": 9}
    assert len(log.entries) == 1


def test_sources_are_acknowledged_apart() -> None:
    log = EventLog()
    log.append(batch(log, "a", source="container/1", n=7))
    log.append(batch(log, "b", source="artifacts", n=2))
    assert log.head().acknowledged == {"container/1": 7, "artifacts": 2}


def test_a_segment_is_an_entry_like_any_other() -> None:
    log = EventLog()
    log.append(batch(log, "a"))
    inline = batch(log, "b", "c")
    segment = Segment(key="runs/run_1/log/segments/2-0.ndjson.zst", sha256="0" * 64, size_bytes=9)
    assert log.append(inline.model_copy(update={"lines": None, "segment": segment}))
    log.write(Draft(AT, "run.retrying", {}))
    entries = log.read(EventsQuery(after=1)).entries
    assert [(entry.first, entry.last, entry.segment) for entry in entries] == [(2, 3, segment), (4, 4, None)]


def test_a_short_log_can_be_had_whole() -> None:
    log = EventLog()
    log.append(batch(log, "a" * 200))
    log.append(batch(log, "b" * 200, n=2))
    log.finish(Draft(AT, "run.completed", {}))
    whole = log.whole(10_000)
    assert whole == [*log.entries, log.terminal]
    assert log.whole(500) is None
    assert log.whole(1) is None


def test_the_terminal_event_is_the_last_and_shown_only_to_who_asks() -> None:
    log = EventLog()
    log.append(batch(log, "a"))
    late = batch(log, "late")
    log.finish(Draft(AT, "run.completed", {"duration_ms": 1}))
    assert not log.append(late)
    assert not log.append(batch(log, "later"))
    assert content(log) == ["a"]
    assert content(log, terminal=True) == ["a", "run.completed"]
    assert log.head().next_seq == 3
    everything = "".join(entry.lines or "" for entry in log.read(EventsQuery(include_terminal=True)).entries)
    assert verify(everything.encode().splitlines()) == (2, log.hash)


@given(st.lists(st.integers(1, 4), max_size=12), st.integers(0, 40), st.integers(1, 2000))
def test_pages_of_any_size_from_anywhere_make_the_whole_log(sizes: list[int], after: int, max_bytes: int) -> None:
    log = EventLog()
    written: list[str] = []
    for size in sizes:
        messages = [f"{len(written) + index}" for index in range(size)]
        log.append(batch(log, *messages))
        written += messages
    assert content(log, after, max_bytes) == written[after:]


@dataclass
class Writer:
    """A worker's ingester: knows the log as it was when it asked, and sends what it has, more than once if need be."""

    epoch: int
    next_seq: int
    digest: str
    n: int


@settings(max_examples=150, stateful_step_count=40)
class Writers(RuleBasedStateMachine):
    """Two ingesters of one container, one of which takes over from the other, over a line that repeats and reorders."""

    @initialize()
    def begin(self) -> None:
        self.log = EventLog()
        self.epoch = 0
        self.writers: list[Writer] = []
        self.sent: list[Batch] = []
        self.taken = 0

    @rule()
    def take_over(self) -> None:
        self.epoch += 1
        self.log.fence(self.epoch)
        head = self.log.head()
        self.writers.append(Writer(self.epoch, head.next_seq, head.hash, head.acknowledged.get("container/1", 0)))

    @rule(which=st.integers(0, 3), count=st.integers(0, 3))
    def send(self, which: int, count: int) -> None:
        """The frames after ``n``, each an event of its own number, as the container gives them to whoever asks."""
        if not self.writers:
            return
        writer = self.writers[-1 - which % len(self.writers)]
        drafts = [Draft(AT, "log", {"message": str(writer.n + index)}) for index in range(1, count + 1)]
        lines, last, digest = render(drafts, writer.next_seq, writer.digest)
        made = Batch(
            source="container/1", epoch=writer.epoch, n=writer.n + count, first=writer.next_seq, last=last,
            hash=digest, lines=lines.decode() or None,
        )  # fmt: skip
        self.sent.append(made)
        self.log.append(made)
        writer.next_seq, writer.digest, writer.n = last + 1, digest, writer.n + count

    @rule(which=st.integers(0, 50))
    def repeat(self, which: int) -> None:
        if self.sent:
            self.log.append(self.sent[which % len(self.sent)])

    @invariant()
    def every_frame_is_there_once_and_in_order(self) -> None:
        if hasattr(self, "log"):
            messages = content(self.log)
            assert messages == [str(number) for number in range(1, len(messages) + 1)]
            assert self.log.head().acknowledged.get("container/1", 0) == len(messages)
            assert len(messages) >= self.taken
            self.taken = len(messages)

    @invariant()
    def the_chain_holds(self) -> None:
        if hasattr(self, "log"):
            lines = "".join(entry.lines or "" for entry in self.log.entries).encode()
            expected = verify(lines.splitlines()) if lines else (0, GENESIS)
            assert (self.log.next_seq - 1, self.log.hash) == expected


TestWriters = Writers.TestCase
