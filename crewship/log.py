"""A log as its workflow holds it: entries in order, and the rules by which one more is taken.

Pure list work without I/O, so that a workflow may own it. The rules:

* a batch under the fence is dropped: its writer was replaced (``fence``);
* a batch whose events are all here already is dropped, its ``n`` is not forgotten: it was signalled twice;
* a batch that does not begin at ``next_seq`` is dropped: a writer always takes its place from ``head`` first.

Rendering is a function of the frames, so a batch that is dropped as a repeat had the same bytes.
"""

from crewship.contracts import Batch, EndFacts, Entry, EventsPage, EventsQuery, Head, ResultFacts
from crewship.events import GENESIS, Draft, render


class EventLog:
    """Entries of one run's or deployment's log; the one place where ``seq`` is given out."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.next_seq = 1
        self.hash = GENESIS
        self.epoch = 0
        self.acknowledged: dict[str, int] = {}
        self.result: ResultFacts | None = None
        self.end: EndFacts | None = None
        self.terminal: Entry | None = None
        self.signals = 0
        self.inline_bytes = 0

    def fence(self, epoch: int) -> None:
        """From now on only writers of ``epoch`` or later are heard."""
        self.epoch = max(self.epoch, epoch)

    def begin_attempt(self, epoch: int) -> None:
        """A new container is to come: hear nobody under ``epoch`` any more, and know nothing of how the last one ended."""
        self.fence(epoch)
        self.result = self.end = None

    def append(self, batch: Batch) -> bool:
        """Take ``batch`` if it is the next one; whether it was taken."""
        if self.terminal is not None or batch.epoch < self.epoch or batch.first != self.next_seq:
            return False
        self.signals += 1
        self.inline_bytes += len(batch.lines or "")
        self.acknowledged[batch.source] = max(batch.n, self.acknowledged.get(batch.source, 0))
        if batch.result is not None:
            self.result = batch.result
        if batch.end is not None:
            self.end = batch.end
        if batch.last >= batch.first:
            self.entries.append(Entry(first=batch.first, last=batch.last, lines=batch.lines, segment=batch.segment))
            self.next_seq, self.hash = batch.last + 1, batch.hash
        return True

    def write(self, draft: Draft) -> None:
        """Append an event of the workflow's own."""
        lines, last, self.hash = render([draft], self.next_seq, self.hash)
        self.entries.append(Entry(first=self.next_seq, last=last, lines=lines.decode()))
        self.next_seq = last + 1

    def finish(self, draft: Draft) -> None:
        """Append the terminal event: the last one, kept apart (see ``EventsQuery.include_terminal``)."""
        lines, last, self.hash = render([draft], self.next_seq, self.hash)
        self.terminal = Entry(first=self.next_seq, last=last, lines=lines.decode())
        self.next_seq = last + 1

    def head(self, *, cancel_requested: bool = False) -> Head:
        """Where the log stands."""
        return Head(
            next_seq=self.next_seq,
            hash=self.hash,
            epoch=self.epoch,
            acknowledged=dict(self.acknowledged),
            result=self.result,
            end=self.end,
            cancel_requested=cancel_requested,
            signals=self.signals,
            inline_bytes=self.inline_bytes,
        )

    def whole(self, max_bytes: int) -> list[Entry] | None:
        """The finished log, when its entries are not over ``max_bytes``."""
        page = self.read(EventsQuery(after=0, include_terminal=True, max_bytes=max_bytes))
        # A page has at least one entry, whatever its size.
        return None if page.more or sum(len(entry.lines or "") for entry in page.entries) > max_bytes else page.entries

    def read(self, query: EventsQuery) -> EventsPage:
        """Entries that hold events after ``query.after``; at least one if there is any, whatever its size."""
        entries = self.entries
        if query.include_terminal and self.terminal is not None:
            entries = [*entries, self.terminal]
        page: list[Entry] = []
        size = 0
        for entry in entries[_first_after(entries, query.after) :]:
            size += 200 + len(entry.lines or "")
            if page and size > query.max_bytes:
                return EventsPage(entries=page, more=True)
            page.append(entry)
        return EventsPage(entries=page, more=False)


def _first_after(entries: list[Entry], after: int) -> int:
    """Index of the first entry that ends after seq ``after``; entries are in order, so by bisection."""
    low, high = 0, len(entries)
    while low < high:
        middle = (low + high) // 2
        if entries[middle].last <= after:
            low = middle + 1
        else:
            high = middle
    return low
