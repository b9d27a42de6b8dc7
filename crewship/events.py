"""What an event is on the wire, and the chain that proves a log is whole.

An event is one line of NDJSON in a fixed key order::

    {"seq":1,"at":"2026-01-31T09:05:00.123Z","type":"log","data":{...},"hash":"<64 hex>"}

``hash`` is SHA-256 over the predecessor's hash (its 64 hex characters; 64 zeros for the first event) followed by this
line's bytes up to, not including, ``,"hash"``. So a log can be verified from its bytes alone, without parsing JSON in any
canonical way, and a run's events are the same bytes for every reader.

Rendering is a pure function of (seq, at, type, data, predecessor's hash): a frame that is ingested twice, by two
workers even, gives the same bytes twice.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

GENESIS = "0" * 64
"""The hash that the first event's predecessor would have."""

RUN_TERMINAL = frozenset({"run.completed", "run.failed", "run.canceled"})
DEPLOYMENT_TERMINAL = frozenset({"deployment.ready", "deployment.failed"})
TERMINAL = RUN_TERMINAL | DEPLOYMENT_TERMINAL

EVENT_TYPES = TERMINAL | {
    "run.started", "run.retrying", "log", "log.gap", "artifact", "custom", "network.denied",
    "agent.started", "agent.completed", "agent.error", "task.started", "task.completed", "task.error",
    "tool.called", "tool.result", "tool.error", "llm.called", "llm.completed",
    "build.started", "build.completed", "build.failed", "deployment.activated",
}  # fmt: skip
"""Every type that a log can hold; ``?types=`` accepts these."""

CLAIMED = re.compile(r"(agent|task|tool|llm)\.[a-z_]+|custom")
"""Types that the crew's process may claim; the others are the platform's own."""

_LINE = re.compile(rb'\{"seq":(\d+),"at":("[^"]*"),"type":"([^"]*)","data":\{(.*)\},"hash":"([0-9a-f]{64})"\}(?:\n|\Z)')


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that has no place in a log yet. ``at`` is RFC 3339 with milliseconds."""

    at: str
    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """An event read back from its line."""

    seq: int
    at: str
    type: str
    data: dict[str, Any]
    hash: str


class Renderer:
    """Gives drafts their places, one after another: collects lines and moves ``seq`` and ``hash`` along.

    ``log`` is the path of a million lines: no object a line, one format and one hash.
    """

    def __init__(self, next_seq: int, previous_hash: str) -> None:
        self.next_seq = next_seq
        self.hash = previous_hash
        self._lines: list[bytes] = []

    def event(self, draft: Draft) -> None:
        """Render one event."""
        self._add(draft.at.encode(), draft.type.encode(), orjson.dumps(draft.data, option=orjson.OPT_NON_STR_KEYS))

    def log(self, at: str, messages: list[str], level: str, stream: str) -> None:
        """Render a ``log`` event for each message."""
        if not messages:
            return
        prefix = f',"at":"{at}","type":"log","data":{{"message":"'
        suffix = f'","level":"{level}","stream":"{stream}"}}'
        sha256, seq, previous = hashlib.sha256, self.next_seq, self.hash
        lines = []
        # All are written as JSON at once. Within a JSON string no quote stands without a backslash, so `","` only divides.
        for message in orjson.dumps(messages).decode()[2:-2].split('","'):
            body = f'{{"seq":{seq}{prefix}{message}{suffix}'
            previous = sha256((previous + body).encode()).hexdigest()
            lines.append(f'{body},"hash":"{previous}"}}\n')
            seq += 1
        self._lines.append("".join(lines).encode())
        self.next_seq, self.hash = seq, previous

    def take(self) -> bytes:
        """The lines since the last call."""
        lines = b"".join(self._lines)
        self._lines.clear()
        return lines

    def _add(self, at: bytes, type_: bytes, data: bytes) -> None:
        body = b'{"seq":%d,"at":"%b","type":"%b","data":%b' % (self.next_seq, at, type_, data)
        self.hash = hashlib.sha256(self.hash.encode() + body).hexdigest()
        self._lines.append(b'%b,"hash":"%b"}\n' % (body, self.hash.encode()))
        self.next_seq += 1


def render(drafts: Iterable[Draft], first_seq: int, previous_hash: str) -> tuple[bytes, int, str]:
    """Give ``drafts`` their places: the NDJSON lines, the last seq used, and the last hash.

    With no drafts: ``(b"", first_seq - 1, previous_hash)``.
    """
    renderer = Renderer(first_seq, previous_hash)
    for draft in drafts:
        renderer.event(draft)
    return renderer.take(), renderer.next_seq - 1, renderer.hash


def parse(lines: bytes) -> Iterator[Event]:
    """The events in whole NDJSON ``lines``.

    Raises:
        ValueError: a line is not one that :func:`render` makes.
    """
    for line in lines.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"not an event: {line[:80]!r}")
        yield Event(
            seq=int(match[1]),
            at=match[2][1:-1].decode(),
            type=match[3].decode(),
            data=orjson.loads(b"{" + match[4] + b"}"),
            hash=match[5].decode(),
        )


def verify(lines: Iterable[bytes], first_seq: int = 1, previous_hash: str = GENESIS) -> tuple[int, str]:
    """Check seq and chain over ``lines`` (each one event, with or without its newline): the last seq and hash.

    Raises:
        ValueError: says at which event the chain breaks, and how.
    """
    expected = first_seq
    for line in lines:
        line = line.rstrip(b"\n")
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"event {expected}: the line is not an event")
        if int(match[1]) != expected:
            raise ValueError(f"event {expected}: the log goes on with {int(match[1])}")
        body = line[: line.rindex(b',"hash":"')]
        previous_hash = hashlib.sha256(previous_hash.encode() + body).hexdigest()
        if previous_hash.encode() != match[5]:
            raise ValueError(f"event {expected}: the hash does not match its content and predecessor")
        expected += 1
    return expected - 1, previous_hash


def seek(lines: bytes, after: int, types: frozenset[str] | None = None) -> bytes:
    """Those of whole NDJSON ``lines`` with a seq over ``after`` and, when given, one of ``types``."""
    if types is None:
        first = first_seq_of(lines)
        if first > after:
            return lines
        position = 0
        for _ in range(after - first + 1):
            position = lines.find(b"\n", position) + 1
            if position == 0:
                return b""
        return lines[position:]
    wanted = {name.encode() for name in types}
    return b"".join(m[0] for m in _LINE.finditer(lines) if int(m[1]) > after and m[3] in wanted)


def first_seq_of(lines: bytes) -> int:
    """The seq of the first of whole NDJSON ``lines``."""
    return int(lines[7 : lines.index(b",", 7)])


def sse(lines: bytes) -> bytes:
    """The SSE frames of whole NDJSON ``lines``: ``id``, ``event``, and ``data`` with ``at`` added to the event's own data.

    One substitution over the whole chunk: a million events a second would be too many for a loop in Python.
    """
    return _EMPTY_DATA.sub(b"{", _LINE.sub(rb'id: \1\nevent: \3\ndata: {\4,"at":\2}\n\n', lines))


_EMPTY_DATA = re.compile(rb"(?<=\ndata: )\{,")
