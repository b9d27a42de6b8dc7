"""Follows one container: reads its frames, acknowledges what is durable, attaches again when the stream breaks.

The end of a stream is not the end of a run (the engine's daemon may have been restarted), so the engine is asked.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

from activities.log_writer import LogWriter
from activities.run_records import RunRecords
from crewship.attached import Attached
from crewship.contracts import EndFacts, Head, ResultFacts
from crewship.engine import ContainerMissing, Engine
from crewship.errors import Unavailable
from crewship.events import Draft
from crewship.frames import Frame, FrameReader, end_facts, result_facts, translate
from crewship.redaction import Redactor

logger = logging.getLogger(__name__)

_SOURCES = {"runtime": "engine", "network": "guard", "loosened": "settings"}
"""Who says what is not read inside the container."""

DISMISSED_SECONDS = 2.0
"""How long a supervisor that has nothing more to wait for may take to end."""


class LetGo(Exception):
    """The worker stops: the container goes on and is adopted by the next one."""


class Follower:
    """One container's frames, from the last acknowledged one to its end.

    Args:
        head: Where the log stands; what it knows of the container is not told again.
        source: The container's name in the log.
        is_closed: Whether the container has no network.
        is_started: Whether phase 2 began before this one follows.

    Attributes:
        end: The facts of the ``end`` frame, once it came.
        ended: Set by the owner when nothing more is to be watched.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        container: str,
        nonces: Collection[str],
        deployment_id: str,
        redactor: Redactor,
        records: RunRecords,
        head: Head,
        source: str,
        epoch: int,
        log_limit_bytes: int,
        is_retry: bool = False,
        is_started: bool = False,
        is_closed: bool = False,
    ) -> None:
        self._engine, self._container = engine, container
        self._deployment_id, self._redactor, self._records = deployment_id, redactor, records
        self._acknowledged = head.acknowledged.get(source, 0)
        self._reader = FrameReader(nonces, self._acknowledged)
        self._epoch = epoch
        self._is_retry, self._is_closed = is_retry, is_closed
        self._attachment: Attached | None = None
        self._log_limit_bytes, self._log_bytes = log_limit_bytes, 0
        self._result: ResultFacts | None = head.result
        self.end: EndFacts | None = head.end
        self.started_at_ms: int | None = None
        self.ended_at_ms: int | None = None
        self.log_limit_reached = False
        self.on_end: Callable[[], None] = lambda: None
        """Called when the container is about to end: it waits for its last frame to be acknowledged."""
        self.is_enough: Callable[[EndFacts], bool] = lambda _: False
        """Asked when its last frame came: whether nobody needs the container's own end."""
        self.left_early = False
        """It was enough: the supervisor is still there, and waits for that frame to be acknowledged."""
        self._end_n = 0
        self._early: list[Draft] | None = None if is_started else []
        """What was told before the run's first event, which comes first; None: nothing is held any more."""
        self._early_lock = threading.Lock()
        self.described: Future[None] | None = None
        """The isolation is being recorded."""
        self.isolation_besides: Callable[[], dict[str, Any]] = dict
        """What is known of the container's isolation from outside; called in a thread of its own."""
        self._let_go = False
        self.ended = threading.Event()

    def attach(self) -> None:
        self._reader.reset()
        self._attachment = Attached(self._engine, self._container)

    def send(self, commands: bytes) -> None:
        """Write to the supervisor; when nobody is there it is sent again after the next attachment, where it matters."""
        try:
            if self._attachment is not None:
                self._attachment.write(commands)
        except ConnectionError as error:
            logger.info("%s: stdin: %s", self._container, error)

    def acknowledge(self, n: int) -> None:
        """Everything up to ``n`` is durable. Called by the log writer's thread."""
        if n > self._acknowledged:
            self._acknowledged = n
            self.send(self._command("ack", n))

    def _command(self, op: str, n: int) -> bytes:
        return json.dumps({"op": op, "n": n, "epoch": self._epoch}).encode() + b"\n"

    def close(self) -> None:
        if self._attachment is not None:
            self._attachment.close()

    def dismiss(self) -> None:
        """Everything is durable: let the supervisor end, and wait until it has. Called by another thread."""
        self.acknowledge(self._end_n)
        try:
            self._engine.wait(self._container, DISMISSED_SECONDS)
        except (ContainerMissing, Unavailable) as error:
            logger.info("%s: %s", self._container, error)
        finally:
            self.close()

    def resume(self) -> None:
        """After an attachment to a running container: say what is durable, and ask for what came after it."""
        self.send(self._command("ack", self._acknowledged) + self._command("replay", self._reader.last))

    def let_go(self) -> None:
        """Make ``follow`` raise ``LetGo``. Called by another thread."""
        self._let_go = True
        self.close()

    def look(self) -> None:
        """See that the container's end is noticed. Called by another thread, every second or so."""
        attachment = self._attachment
        if attachment is not None:
            attachment.look()

    def tell(self, draft: Draft, writer: LogWriter) -> None:
        """An event that the container did not send. Called by other threads."""
        with self._early_lock:
            if self._early is not None:
                self._early.append(draft)
                return
        writer.tell([draft])

    def follow(self, writer: LogWriter) -> None:
        """Until the container has ended, or is gone, or has told enough.

        Raises:
            LetGo: ``let_go`` was called.
            WorkflowGone: nobody owns the log any more.
            Unavailable: the engine stays away for too long; whoever tries again adopts.
        """
        while True:
            if self._attachment is None:
                self.attach()
                self.resume()
            self._read(writer)
            if self._let_go:
                raise LetGo
            if self.left_early:
                return
            self.close()
            self._attachment = None
            try:
                if self._wait(1.0):
                    return
            except ContainerMissing:
                return

    def _wait(self, seconds: float) -> bool:
        """Whether the container ended; waits for an engine that is being restarted."""
        give_up = time.monotonic() + 60
        while True:
            try:
                return self._engine.wait(self._container, seconds)
            except Unavailable:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.5)

    def _read(self, writer: LogWriter) -> None:
        assert self._attachment is not None
        while (piece := self._attachment.read()) is not None:
            stream, data = piece
            if stream == "stderr":  # the supervisor itself never writes there, unless it breaks
                logger.error("%s: %s", self._container, data.decode("utf-8", "replace").rstrip())
                continue
            for raw in self._reader.feed(data):
                frame = translate(raw, self._deployment_id, self._redactor, is_closed=self._is_closed)
                self._take(frame, writer)
                if self.left_early:
                    return
            if self._reader.replay_wanted:
                self._reader.replay_wanted = False
                self.send(self._command("replay", self._reader.last))

    def _take(self, frame: Frame, writer: LogWriter) -> None:
        result, end, before, urgent = None, None, None, frame.urgent
        match frame.kind:
            case "boot":
                inside = frame.body.get("isolation")
                self.described = self._records.isolation(lambda: isolation(inside, self.isolation_besides()))
            case "started":
                self.started_at_ms = frame.at_ms
                if self._is_retry:
                    frame.drafts.clear()  # a run starts once; ``run.retrying`` has told of this
                before = _result_of(self._records.started(frame.at_ms))
                urgent = False
            case "log":
                self._log_bytes += len(frame.body.get("text") or "")
                self.log_limit_reached = self.log_limit_reached or self._log_bytes > self._log_limit_bytes
            case "result":
                result = self._result = result_facts(frame.body)
                self._records.result(frame.body.get("output"), (frame.body.get("error") or {}).get("traceback"))
            case "end":
                self.on_end()
                self.ended_at_ms = frame.at_ms
                end = self.end = end_facts(frame.body, self._result)
                self._end_n = frame.n
                self.left_early = self.is_enough(end)
        if frame.kind in ("started", "result", "end"):
            with self._early_lock:
                early, self._early = self._early, None
            frame.drafts.extend(early or ())
        writer.write(
            frame.drafts,
            frame.n,
            urgent=urgent,
            is_first=frame.kind == "started",
            is_last=self.left_early,
            result=result,
            end=end,
            before=before,
        )


def isolation(inside: Any, outside: dict[str, Any]) -> dict[str, Any]:
    """``run.isolation``: what the kernel told inside, what is known outside, and which of both each field is."""
    facts: dict[str, Any] = inside if isinstance(inside, dict) else {}
    sources = dict.fromkeys(facts, "inside") | {name: _SOURCES.get(name, "settings") for name in outside}
    return {"source": "inside", **facts, **outside, "sources": sources}


def _result_of(future: "Future[None]") -> Callable[[], None]:
    return lambda: future.result()
