"""Pieces of logs as they are sent, shared by all clients of an API process and bounded in bytes.

A block is what one segment or one archive frame holds. Clients that take zstd are given it as it is stored; for the others it
is decompressed, rendered, and cut into pieces that are small enough to be sent without making other clients wait. Each is
loaded once, however many ask for it at the same time, and forgotten when newer ones need the
room; a slow client keeps nothing alive but the one piece it is being sent.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import anyio
from anyio.to_thread import run_sync

from crewship import archive, events

Form = Literal["ndjson", "sse", "zstd"]
"""What goes over the wire; ``zstd`` is NDJSON in frames of zstd, each of whole lines."""

PIECE_BYTES = 512 * 1024
"""What a client is sent at a time. Each piece costs the event loop about 0.1 ms besides its bytes: with 128 KiB fifty readers
of a million lines cost the process twice the CPU. Rendering as much takes the interpreter's lock about three milliseconds."""
_CAPACITY_BYTES = 96 * 1024 * 1024
_LOADING_THREADS = 8


@dataclass(frozen=True, slots=True)
class Piece:
    """Events ``first`` to ``last`` as they go over the wire."""

    first: int
    last: int
    body: bytes


class Blocks:
    """Least recently used blocks, at most ``capacity_bytes`` of them (but always the newest)."""

    def __init__(self, capacity_bytes: int = _CAPACITY_BYTES) -> None:
        self._capacity_bytes = capacity_bytes
        self._size_bytes = 0
        self._blocks: OrderedDict[tuple[str, int, Form], list[Piece]] = OrderedDict()
        self._loading: dict[tuple[str, int, Form], asyncio.Task[list[Piece]]] = {}
        self._threads = anyio.CapacityLimiter(_LOADING_THREADS)

    @property
    def size_bytes(self) -> int:
        """What is held now."""
        return self._size_bytes

    async def get(self, source: str, first: int, last: int, form: Form, load: Callable[[], bytes]) -> list[Piece]:
        """The pieces of the block that begins with event ``first`` of ``source``.

        Args:
            source: Where the block is from; with ``first`` it names the block's bytes for ever.
            first: Seq of the block's first event.
            last: Seq of its last one.
            form: How the pieces are rendered.
            load: Fetches the block's zstd frame; called in a thread, when the block is not here.
        """
        key = (source, first, form)
        if (block := self._blocks.get(key)) is not None:
            self._blocks.move_to_end(key)
            return block
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._load(key, last, load))
        # Shielded: a client that goes away does not take the block from the others.
        return await asyncio.shield(task)

    async def _load(self, key: tuple[str, int, Form], last: int, load: Callable[[], bytes]) -> list[Piece]:
        _, first, form = key

        def make() -> list[Piece]:
            frame = load()
            return [Piece(first, last, frame)] if form == "zstd" else _cut(archive.decompress(frame), form)

        try:
            block = await run_sync(make, limiter=self._threads)
            self._blocks[key] = block
            self._size_bytes += _size(block)
            while self._size_bytes > self._capacity_bytes and len(self._blocks) > 1:
                self._size_bytes -= _size(self._blocks.popitem(last=False)[1])
            return block
        finally:
            del self._loading[key]


def render(lines: bytes, form: Form) -> bytes:
    """NDJSON ``lines`` in ``form``."""
    match form:
        case "ndjson":
            return lines
        case "sse":
            return events.sse(lines)
        case "zstd":
            return archive.compress(lines) if lines else b""


def _cut(lines: bytes, form: Form) -> list[Piece]:
    starts = [0]
    while (newline := lines.find(b"\n", starts[-1] + PIECE_BYTES - 1)) != -1 and newline + 1 < len(lines):
        starts.append(newline + 1)
    parts = [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]
    firsts = [events.first_seq_of(part) for part in parts if part]
    last = firsts[-1] + parts[-1].count(b"\n") - 1 if firsts else 0
    lasts = [*(first - 1 for first in firsts[1:]), last]
    return [
        Piece(first, last, render(part, form)) for first, last, part in zip(firsts, lasts, parts, strict=bool(firsts))
    ]


def _size(block: list[Piece]) -> int:
    return sum(len(piece.body) for piece in block)
