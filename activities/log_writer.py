"""Writes a log: batches drafts, gives them their seq and hash, signals the workflow, then hints the tail.

One sender thread a log, so batches are in order and one at a time is under way; what comes meanwhile is the next batch. An
urgent draft is sent at once. A frame that gave no draft has only to be acknowledged, and goes along with the next that did.
What a run begins with waits a moment for what follows (ADR 0028); what a crew that succeeded ends with is no signal at all, but
comes along with the facts of the container's end (ADR 0029). A log line is sent at once when nothing was sent lately;
otherwise it lingers until the last batch is some time ago, and longer as the log's budget of signals is used: a workflow
takes 10,000 signals in all, and a run with a million lines is meant to need under 2,000. Batches over 16 KiB, or beyond the
budget of bytes in line, go to the object store as zstd segments and the signal carries the pointer.

Backpressure: ``write`` waits while more than 8 MiB are pending, so a slow store or engine slows the container. Nothing is
dropped: a signal that fails is repeated until it is through, and only a workflow that is gone ends the writer.
"""

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import orjson

from activities.bridge import TemporalBridge
from crewship import archive
from crewship.contracts import Batch, EndFacts, Head, ResultFacts, Segment
from crewship.errors import NotFound, Unavailable
from crewship.events import Draft, LogLines, Renderer
from crewship.objects import segment_key
from crewship.storage import ObjectStore
from crewship.tail import TailPublisher

logger = logging.getLogger(__name__)

INLINE_BYTES = 16 * 1024
"""Largest batch that is signalled in line."""
INLINE_BUDGET_BYTES = 1024 * 1024
"""Bytes in line over a log's life; a quarter of the 4 MB that a run's history may take."""
PENDING_BYTES = 8 * 1024 * 1024
BATCH_BYTES = 4 * 1024 * 1024
"""Text in one batch at most: what a reader has to expand to show any event of it."""

SILENT_SECONDS = 1.0
"""How long frames without a draft wait for one that has: each signal costs 5 to 10 ms of CPU."""
FIRST_SECONDS = 0.05
"""How long a run's first event waits for the next ones: a short crew has told everything by then, and one signal takes it all."""

LINGER_SECONDS = ((400, 0.025), (800, 0.1), (1200, 0.5), (2000, 2.0), (8000, 10.0))
"""(signals used, seconds between two batches of log lines); beyond the last: 60 s, and urgent drafts wait as well."""
BULK_LINGER_SECONDS = 0.2
"""At least so long after a batch over ``INLINE_BYTES``: who prints that much is not read line by line, and each signal costs the
workflow engine 5 ms of CPU."""


class Abandoned(Exception):
    """The writer was abandoned: another one goes on."""


class WorkflowGone(Exception):
    """The workflow that owns the log has ended: there is nobody to write for."""


@dataclass(slots=True)
class _Item:
    n: int
    drafts: list[Draft | LogLines]
    size_bytes: int
    result: ResultFacts | None
    end: EndFacts | None
    before: Callable[[], None] | None


@dataclass
class _Pending:
    items: deque[_Item] = field(default_factory=deque)
    size_bytes: int = 0
    urgent: bool = False
    shows: bool = False
    """Whether any of it is to be seen; what is not has only to be acknowledged, in its time."""
    since: float = 0.0


class LogWriter:
    """One source's writer of one log. ``write`` may be called from one thread, ``close`` ends it.

    Args:
        head: Where the log stands; the writer goes on from there.
        source: Name under which the log remembers ``n``.
        epoch: Fence; grows with each writer that takes over.
        on_durable: Called (sender thread) with the last ``n`` that is durable.
    """

    def __init__(
        self,
        bridge: TemporalBridge,
        store: ObjectStore,
        tail: TailPublisher,
        *,
        workflow_id: str,
        source: str,
        epoch: int,
        head: Head,
        on_durable: Callable[[int], None] | None = None,
    ) -> None:
        self._bridge, self._store, self._tail = bridge, store, tail
        self._workflow_id, self._source, self._epoch = workflow_id, source, epoch
        self._renderer = Renderer(head.next_seq, head.hash)
        self._on_durable = on_durable
        self._condition = threading.Condition()
        self._pending = _Pending()
        self._closing = False
        self._failure: BaseException | None = None
        self.signals = head.signals
        self._inline_bytes = head.inline_bytes
        self._bulk = False
        self._last_sent = 0.0
        self._held_until = 0.0
        self._sending = False
        self._is_kept = False
        self._last_n = head.acknowledged.get(source, 0)
        self._thread = threading.Thread(target=self._send_all, name=f"log-{workflow_id}", daemon=True)
        self._thread.start()

    def write(
        self,
        drafts: list[Draft | LogLines],
        n: int = 0,
        *,
        urgent: bool = False,
        is_first: bool = False,
        is_last: bool = False,
        result: ResultFacts | None = None,
        end: EndFacts | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Hand over what frame ``n`` gave; waits while too much is pending.

        Args:
            urgent: Not to be kept back.
            is_first: The run begins with it. It is kept back for ``FIRST_SECONDS``, with what follows that is not urgent.
            is_last: Nothing follows. It is kept, with all that is pending, for who asks for ``last``.
            before: Called before these drafts are made durable, in the sender's thread, or are asked for. What it raises ends the
                writer, and its frame comes again to the next one: durable, it would be over.

        Raises:
            WorkflowGone: the log has no owner any more.
        """
        size = sum(
            sum(map(len, draft.messages)) + 64 * len(draft.messages) if isinstance(draft, LogLines) else 512
            for draft in drafts
        )
        with self._condition:
            while self._pending.size_bytes > PENDING_BYTES and self._failure is None and not self._closing:
                self._condition.wait()
            self._raise_failure()
            self._last_n = max(self._last_n, n)
            pending, shows = self._pending, bool(drafts) or end is not None
            if not pending.items:
                pending.since = time.monotonic()
            pending.items.append(_Item(n, drafts, size, result, end, before))
            pending.size_bytes += size
            pending.urgent = pending.urgent or (urgent and shows)
            pending.shows = pending.shows or shows
            self._is_kept = is_last
            if is_first:
                self._held_until = time.monotonic() + FIRST_SECONDS
            self._condition.notify_all()

    def tell(self, drafts: list[Draft | LogLines]) -> None:
        """Hand over events that no frame gave, from any thread; they go along with the last frame that was written.

        Never waits and never raises: after the writer's end they are nobody's any more.
        """
        with self._condition:
            if self._closing or self._failure is not None:
                return
            pending = self._pending
            if not pending.items:
                pending.since = time.monotonic()
            pending.items.append(_Item(self._last_n, drafts, 512 * len(drafts), None, None, None))
            pending.size_bytes += 512 * len(drafts)
            pending.shows = True
            self._condition.notify_all()

    def last(self) -> Batch | None:
        """What was kept, for the caller to make durable; None when it is too much for one batch, and then it is durable already.

        Raises:
            WorkflowGone: the log has no owner any more.
        """
        with self._condition:
            while self._sending and self._failure is None and not self._closing:
                self._condition.wait()
            self._raise_failure()
            pending = self._pending
            if fits := pending.size_bytes <= BATCH_BYTES:
                self._pending = _Pending()
        if not fits:
            self.flush()
            return None
        batch = self._batch(list(pending.items))
        _tell_before(pending.items)
        return batch

    def flush(self) -> None:
        """Wait until all that was written is durable."""
        with self._condition:
            self._is_kept, self._pending.urgent = False, True
            self._condition.notify_all()
            while (self._pending.items or self._sending) and self._failure is None and not self._closing:
                self._condition.wait()
            self._raise_failure()

    def close(self) -> None:
        """Flush and end the sender's thread."""
        try:
            self.flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """End the sender's thread without waiting for what is pending; ``write`` and ``flush`` raise ``Abandoned``."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise Abandoned

    def _send_all(self) -> None:
        try:
            while (items := self._next_items()) is not None:
                self._send(items)
                with self._condition:
                    self._sending = False
                    self._condition.notify_all()
        except BaseException as failure:
            with self._condition:
                self._failure = failure
                self._condition.notify_all()

    def _linger_seconds(self) -> float:
        linger = next((seconds for used, seconds in LINGER_SECONDS if self.signals < used), 60.0)
        return max(linger, BULK_LINGER_SECONDS) if self._bulk else linger

    def _due(self, pending: _Pending) -> float:
        if not pending.shows:
            return pending.since + SILENT_SECONDS
        return max(self._held_until, self._last_sent + self._linger_seconds())

    def _next_items(self) -> list[_Item] | None:
        with self._condition:
            while True:
                if self._closing:
                    return None
                pending = self._pending
                if pending.items and not self._is_kept:
                    urgent = pending.urgent and self.signals < LINGER_SECONDS[-1][0]
                    wait = self._due(pending) - time.monotonic()
                    if urgent or wait <= 0 or pending.size_bytes >= BATCH_BYTES:
                        break
                    self._condition.wait(wait)
                else:
                    self._condition.wait()
            items: list[_Item] = []
            size = 0
            while pending.items and (not items or size + pending.items[0].size_bytes <= BATCH_BYTES):
                items.append(pending.items.popleft())
                size += items[-1].size_bytes
            pending.size_bytes -= size
            if not pending.items:
                pending.urgent = pending.shows = False
            self._last_sent = time.monotonic()
            self._sending = True
            self._condition.notify_all()
            return items

    def _send(self, items: list[_Item]) -> None:
        batch = self._batch(items)
        _tell_before(items)
        self._repeat(lambda: self._bridge.signal(self._workflow_id, "append", batch))
        self.signals += 1
        if batch.last >= batch.first:
            self._tail.publish(self._workflow_id, orjson.dumps({"batch": batch.model_dump(exclude={"result", "end"})}))
        if self._on_durable is not None:
            self._on_durable(batch.n)

    def _batch(self, items: list[_Item]) -> Batch:
        renderer = self._renderer
        first = renderer.next_seq
        for item in items:
            for draft in item.drafts:
                if isinstance(draft, LogLines):
                    renderer.log(draft.at, draft.messages, draft.level, draft.stream)
                else:
                    renderer.event(draft)
        lines = renderer.take()
        self._bulk = len(lines) > INLINE_BYTES
        segment = None
        if len(lines) > INLINE_BYTES or self._inline_bytes + len(lines) > INLINE_BUDGET_BYTES:
            segment = self._store_segment(first, lines)
        else:
            self._inline_bytes += len(lines)
        return Batch(
            source=self._source,
            epoch=self._epoch,
            n=items[-1].n,
            first=first,
            last=renderer.next_seq - 1,
            hash=renderer.hash,
            lines=lines.decode() if segment is None and lines else None,
            segment=segment,
            result=next((item.result for item in reversed(items) if item.result is not None), None),
            end=next((item.end for item in reversed(items) if item.end is not None), None),
        )

    def _store_segment(self, first: int, lines: bytes) -> Segment:
        frame = archive.compress(lines)
        key = segment_key(self._workflow_id, first, self._epoch)
        self._repeat(lambda: self._store.put(key, frame))
        return Segment(key=key, sha256=hashlib.sha256(frame).hexdigest(), size_bytes=len(frame))

    def _repeat(self, call: Callable[[], object]) -> None:
        """Until it works; with an end only when the workflow is gone or the writer is abandoned."""
        delay = 0.05
        while True:
            try:
                call()
                return
            except NotFound as error:
                raise WorkflowGone(self._workflow_id) from error
            except Unavailable as error:
                logger.warning("%s: %s; trying again in %.1f s", self._workflow_id, error.detail, delay)
                with self._condition:
                    if self._condition.wait_for(lambda: self._closing, delay):
                        raise
                delay = min(delay * 2, 5.0)


def _tell_before(items: Iterable[_Item]) -> None:
    for item in items:
        if item.before is not None:
            item.before()
