"""What redaction takes of a log's throughput: frames as a container sends them, through the worker's whole way to the store.

Both sides in one process, turn by turn: the frame parser, the translation, the log writer with its rendering, hashing
and packing, and a folder as object store; the workflow engine is left out, so that nothing hides what redaction costs. CPU time
of all threads, which on a busy machine says more than the clock.
"""

import json
import secrets
import statistics
import time
from pathlib import Path
from typing import Any

from activities.log_writer import LogWriter
from benchmarks.report import Row, paired_ratio
from crewship.folder_storage import FolderStore
from crewship.frames import FrameReader, translate
from crewship.log import EventLog
from crewship.redaction import Redactor

LINES = 200_000
LINES_A_FRAME = 500
VALUES = 20
ROUNDS = 7
LEAK_EVERY = 100


def measure(folder: Path) -> list[Row]:
    values = {f"KEY_{number}": f"sk-{secrets.token_urlsafe(40)}" for number in range(VALUES)}
    off, on = Redactor({}), Redactor(values)
    clean = _frames([])
    leaking = _frames(list(values.values()))
    for frames in (clean, leaking):  # once for the caches
        _through(folder, frames, on)
    rows = []
    for name, frames in (("an ordinary log", clean), (f"a log with a value in one of {LEAK_EVERY} lines", leaking)):
        without, redacted = [], []
        for _ in range(ROUNDS):
            without.append(_through(folder, frames, off))
            redacted.append(_through(folder, frames, on))
        lost = (1 - 1 / paired_ratio(redacted, without)) * 100
        rows.append(
            Row(
                f"redaction of {VALUES} values: throughput that it takes of {name}", max(0.0, lost), "%", 20,
                f"{LINES / statistics.median(redacted):,.0f}, off {LINES / statistics.median(without):,.0f} lines a CPU second",
            )
        )  # fmt: skip
    return rows


def _frames(values: list[str]) -> list[bytes]:
    """A log in pieces as the container's attachment gives them."""
    frames = []
    for first in range(0, LINES, LINES_A_FRAME):
        lines = [
            f"2026-01-31 09:05:00 INFO crew.research: step {number} of the plan, {number * 7919 % 100_003} tokens, going on"
            + (f" with {values[number % len(values)]}" if values and number % LEAK_EVERY == 0 else "")
            for number in range(first, first + LINES_A_FRAME)
        ]
        frame = {
            "n": len(frames) + 1,
            "k": "n",
            "at": 1,
            "t": "log",
            "s": "stdout",
            "l": "info",
            "text": "\n".join(lines),
        }
        frames.append(json.dumps(frame).encode() + b"\n")
    return frames


def _through(folder: Path, frames: list[bytes], redactor: Redactor) -> float:
    """CPU seconds until all of it is durable."""
    store = FolderStore(folder / secrets.token_hex(4))
    store.create()
    bridge: Any = _Bridge()
    began = time.process_time()
    writer = LogWriter(
        bridge, store, bridge, workflow_id="run-run_1", source="container/1", epoch=1, head=bridge.log.head()
    )
    reader = FrameReader({"n"}, 0)
    for data in frames:
        for frame in reader.feed(data):
            meaning = translate(frame, "dep_1", redactor)
            writer.write(meaning.drafts, meaning.n, urgent=meaning.urgent)
    writer.close()
    return time.process_time() - began


class _Bridge:
    """The workflow and the tail, as far as a log writer sees of them."""

    def __init__(self) -> None:
        self.log = EventLog()

    def signal(self, workflow_id: str, name: str, argument: Any) -> None:
        self.log.append(argument)

    def publish(self, topic: str, message: bytes) -> None: ...

    def close(self) -> None: ...
