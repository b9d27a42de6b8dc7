"""The live log: one reader for each run (or deployment) in this process, any number of clients.

A :class:`Feed` knows which entries a log has; ``api.feeds`` makes and ends it. It learns of new ones from the tail's hints,
which are applied at once when they are contiguous, and from the workflow's query, which it asks at the start, when a hint does
not fit, and once a second in case a hint was lost. Clients *pull*: each has its own position (the last seq it was given) and asks
for the next piece, so a slow client waits for nobody, nobody waits for it, and it holds no queue.

The terminal event is in the archive alone. When the row says that the log is closed, the feed drops its live entries and
answers from the archive; the bytes are the same, and a position is a seq, so no client notices. Closed logs are read from
the archive from the start, and their workflows are never queried.
"""

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import orjson
from anyio.to_thread import run_sync
from pydantic import ValidationError

from api.blocks import Blocks, Form, Piece, render
from crewship import events
from crewship.archive import Archive, read_segment_frame
from crewship.contracts import Batch, Entry, EventsPage, EventsQuery, Segment
from crewship.errors import InvalidCursor, NotFound, Unavailable
from crewship.storage import ObjectMissing, ObjectStore

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
_JOIN_BYTES = 64 * 1024
"""A client that catches up is given small entries together, up to this much at a time."""
_SEGMENT_TRIES = 5

Query = Callable[[str, EventsQuery], Awaitable[EventsPage]]
"""Asks a live log; raises ``Unavailable`` and ``NotFound``."""


@dataclass(frozen=True, slots=True)
class LogState:
    """What a log's row tells."""

    last_seq: int | None
    """Of the terminal event; None while the log is live."""
    begun: bool = True
    """Whether there can be events: nothing is written before the row says so, so there is nothing to ask for."""


ReadState = Callable[[str], Awaitable[LogState]]
"""Raises ``NotFound`` when there is no such run or deployment."""


@dataclass(slots=True)
class _Live:
    """An entry of a live log. What is sent of it is rendered once, for all clients."""

    first: int
    """The first event that is shown of it; a segment may begin with earlier ones, which another entry had."""
    last: int
    lines: bytes | None
    segment: Segment | None
    segment_first: int = 0
    rendered: dict[Form, bytes] = field(default_factory=dict)

    def body(self, form: Form) -> bytes:
        assert self.lines is not None
        if form == "ndjson":
            return self.lines
        if form not in self.rendered:
            self.rendered[form] = render(self.lines, form)
        return self.rendered[form]


class Feed:
    """One log as this process knows it."""

    def __init__(
        self,
        workflow_id: str,
        *,
        query: Query,
        read_state: ReadState,
        store: ObjectStore,
        blocks: Blocks,
        poll_seconds: float,
    ) -> None:
        self.workflow_id = workflow_id
        self._query, self._read_state, self._store, self._blocks = query, read_state, store, blocks
        self._poll_seconds = poll_seconds
        self._entries: list[_Live] = []
        self._last = 0
        self._epoch = 0
        self._answers = 0
        """How often a query told all there was."""
        self._closed_at: int | None = None
        self._begun = True
        self._archive: Archive | None = None
        self._lost = False
        """Closed, and the object store does not have it."""
        self._gone = False
        """Nothing more will come: the row is gone, its log is no longer kept, or this process stops."""
        self._changed = asyncio.Event()
        self._nudged = asyncio.Event()
        self._refreshing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.readers = 0
        self.users = 0

    # --- what clients ask -------------------------------------------------------------------------------------------------

    async def starts_after(self, after: int) -> bool:
        """Whether a stream from ``after`` has anything to give, now or later; False for a closed log's end.

        Raises:
            InvalidCursor: ``after`` is beyond the log's last event.
            NotFound: the log is closed and the object store does not have it.
            Unavailable: the log is closed and the object store cannot be reached.
        """
        answers = self._answers
        if self._closed_at is None and after > self._last:
            await self.refresh()
        if self._closed_at is not None:
            if after > self._closed_at:
                raise _beyond(after, self._closed_at)
            if after == self._closed_at:
                return False
            await self.refresh()
            if self._lost:
                raise NotFound(
                    f"The log ended with event {self._closed_at}, and the object store does not have it",
                    code="log_not_found",
                    hint="it was deleted with its project, or lost: crewship doctor checks the object store",
                )
            if self._archive is None:
                raise Unavailable("The object store cannot be reached", hint="crewship doctor")
            return True
        if after > self._last and self._answers > answers:
            raise _beyond(after, self._last)
        # With the worker down nobody can say yet whether ``after`` is right: the stream waits, and ``read`` ends it.
        return True

    async def reach(self, after: int, form: Form, types: frozenset[str]) -> int | None:
        """The place after ``after`` from which the first piece of a closed log has an event of ``types``; None when none is left.
        While the log is live, ``after`` itself.

        This reads nothing that a stream would not read in any case, and the block where it ended is still at hand.

        Raises:
            Unavailable: the object store cannot be reached.
        """
        if self._archive is None:
            return after
        while (piece := await self.read(after, form, types)) is not None:
            if piece.body:
                return after
            after = piece.last
        return None

    async def read(self, after: int, form: Form, types: frozenset[str] | None = None) -> Piece | None:
        """The next piece after seq ``after``, or None when there is none and will be none from this process.

        Waits while the log is live and has nothing new. The piece may be empty when ``types`` leaves nothing of it.

        Raises:
            Unavailable: the object store cannot be reached.
        """
        tries = 0
        answers = self._answers
        while True:
            changed = self._changed
            if self._archive is not None:
                return await self._read_archive(self._archive, after, form, types)
            index = bisect_left(self._entries, after + 1, key=lambda entry: entry.last)
            if index < len(self._entries):
                entry = self._entries[index]
                if entry.segment is None:
                    return self._join(index, after, form, types)
                try:
                    return await self._read_segment(entry, entry.segment, after, form, types)
                except ObjectMissing:
                    # Segments go when the log is archived; if it is not, the store has lost one.
                    tries += 1
                    if tries == _SEGMENT_TRIES:
                        raise
                    await self.refresh()
                    if self._archive is None:
                        await asyncio.sleep(0.2 * tries)
                    continue
            if self._gone or (after > self._last and self._answers > answers):
                return None
            await changed.wait()

    async def closed(self) -> None:
        """Wait until the log is closed (or gone), so that its row is final."""
        while self._closed_at is None and not self._gone:
            await self._changed.wait()

    # --- how entries get here ---------------------------------------------------------------------------------------------

    def hint(self, message: bytes) -> None:
        """Take a message of the tail; one that does not fit, or makes no sense, is only a reason to ask."""
        try:
            content = orjson.loads(message)
            if "batch" not in content:
                self._nudged.set()
                return
            batch = Batch.model_validate(content["batch"])
        except (ValueError, TypeError, ValidationError):
            log.warning("a hint for %s cannot be read", self.workflow_id)
            self._nudged.set()
            return
        if self._archive is not None or batch.epoch < self._epoch or batch.last < batch.first:
            return
        self._epoch = batch.epoch
        if batch.first == self._last + 1:
            self._append([Entry(first=batch.first, last=batch.last, lines=batch.lines, segment=batch.segment)])
        elif batch.first > self._last:
            self._nudged.set()

    async def start(self, follow: Callable[["Feed"], asyncio.Task[None]]) -> None:
        """See to it that the feed keeps up; for each new user, who may be the first to want events."""
        if self._archive is None and not self._gone and self._task is None:
            await self._look()
        if not self._settled and (self._task is None or self._task.done()):
            self._task = follow(self)
        elif self.readers == 1:
            self._nudged.set()

    def stop(self) -> asyncio.Task[None] | None:
        """Nobody uses the feed any more; its task, if there was one, which is about to end."""
        self.end()
        if self._task is not None:
            self._task.cancel()
        return self._task

    async def follow(self) -> None:
        """Keep up with the log until it is closed; one task a feed."""
        while not self._settled:
            self._nudged.clear()
            await self.refresh()
            if self._settled:
                return
            try:
                async with asyncio.timeout(self._poll_seconds):  # wait_for would lose a cancel that comes with a nudge
                    await self._nudged.wait()
            except TimeoutError:
                continue

    @property
    def _settled(self) -> bool:
        """Whether nothing is left to be learned for those who use the feed now."""
        return self._gone or self._archive is not None or (self._closed_at is not None and not self.readers)

    async def refresh(self) -> None:
        """Look whether the log is closed, and ask for what is new if it is not; problems are left for the next time."""
        async with self._refreshing:
            if self._settled:
                return
            await self._look_locked()
            if self._closed_at is None and self.readers:
                await self._guarded(self._ask)

    async def _look(self) -> None:
        async with self._refreshing:
            await self._look_locked()

    async def _look_locked(self) -> None:
        """Whether the log is closed, by its row; then its archive."""
        if self._closed_at is None:
            await self._guarded(self._read_row)
        if self._closed_at is not None and self._archive is None and self.readers:
            await self._guarded(self._open_archive)

    async def _guarded(self, step: Callable[[], Awaitable[None]]) -> None:
        """A step that may fail and is tried again a second later; streams stay open meanwhile."""
        try:
            await step()
        except Unavailable as error:
            log.info("%s: %s", self.workflow_id, error.detail)
        except Exception:
            log.exception("%s cannot be followed", self.workflow_id)

    async def _read_row(self) -> None:
        try:
            state = await self._read_state(self.workflow_id)
            self._closed_at, self._begun = state.last_seq, state.begun
        except NotFound:
            self.end()
        if self._closed_at is not None:
            self._wake()

    def end(self) -> None:
        """Nothing more comes from here: streams end after what they have."""
        self._gone = True
        self._nudged.set()
        self._wake()

    async def _ask(self) -> None:
        """Query until there is nothing new. A workflow that is not there yet has an empty log."""
        more = self._begun
        while more:
            try:
                page = await self._query(self.workflow_id, EventsQuery(after=self._last))
            except NotFound:
                return
            before = self._last
            self._append(page.entries)
            more = page.more and self._last > before
        self._answers += 1
        self._wake()

    async def _open_archive(self) -> None:
        try:
            self._archive = await run_sync(Archive.open, self._store, self.workflow_id)
        except ObjectMissing:
            log.error("%s is closed, and the object store does not have it", self.workflow_id)
            self._lost = True
            self.end()
            return
        self._entries.clear()
        self._wake()

    def _append(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.last <= self._last:
                continue
            if entry.first > self._last + 1:
                break
            lines = entry.lines.encode() if entry.lines is not None else None
            if entry.first <= self._last and lines is not None:
                lines = events.seek(lines, self._last)
            self._entries.append(_Live(self._last + 1, entry.last, lines, entry.segment, entry.first))
            self._last = entry.last
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # --- how pieces are made ----------------------------------------------------------------------------------------------

    def _join(self, index: int, after: int, form: Form, types: frozenset[str] | None) -> Piece:
        """Neighbours in line from ``index`` on, together."""
        bodies: list[bytes] = []
        size = 0
        first, last = self._entries[index].first, after
        while index < len(self._entries) and size < _JOIN_BYTES:
            entry = self._entries[index]
            if entry.lines is None:
                break
            if types is None and after < entry.first:
                bodies.append(entry.body(form))
            else:
                bodies.append(render(events.seek(entry.lines, after, types), form))
            size += len(bodies[-1])
            last = entry.last
            index += 1
        return Piece(max(first, after + 1), last, b"".join(bodies))

    async def _read_segment(
        self, entry: _Live, segment: Segment, after: int, form: Form, types: frozenset[str] | None
    ) -> Piece:
        source = f"{segment.key}#{segment.sha256}"
        return await self._pick(
            source,
            entry.segment_first,
            entry.last,
            after,
            form,
            types,
            lambda: read_segment_frame(self._store, segment),
        )

    async def _read_archive(
        self, archive: Archive, after: int, form: Form, types: frozenset[str] | None
    ) -> Piece | None:
        index = bisect_left(archive.entries, after + 1, key=lambda entry: entry.last)
        if index == len(archive.entries):
            return None
        entry = archive.entries[index]
        return await self._pick(
            self.workflow_id, entry.first, entry.last, after, form, types, lambda: archive.read_frame(entry)
        )

    async def _pick(
        self,
        source: str,
        first: int,
        last: int,
        after: int,
        form: Form,
        types: frozenset[str] | None,
        load: Callable[[], bytes],
    ) -> Piece:
        """The piece of a block that holds the event after ``after``; a filtered or cut one is made from its lines."""
        # Everything below may be at hand: without this, a client that is fast would keep the loop for a whole log.
        await asyncio.sleep(0)
        if types is None:
            piece = _holding(await self._blocks.get(source, first, last, form, load), after)
            if after < piece.first:
                return piece
        piece = _holding(await self._blocks.get(source, first, last, "ndjson", load), after)
        return Piece(after + 1, piece.last, render(events.seek(piece.body, after, types), form))


def _holding(pieces: list[Piece], after: int) -> Piece:
    """Of a block's pieces the one with the event after ``after``."""
    return pieces[bisect_left(pieces, after + 1, key=lambda piece: piece.last)]


def _beyond(after: int, last: int) -> InvalidCursor:
    return InvalidCursor(
        f"The log has no event {after}: its last one is {last}", hint="resume with the id of the last event you have"
    )
