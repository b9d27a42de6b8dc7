"""A run's flight recording: what it used over its life, in a bounded number of points.

When the points are full, each two neighbours become one and the interval doubles, so a run of a second and one of a day both have
between 100 and 200 of them. What is counted (CPU, network, disk) is cumulative; of what is measured (memory, processes)
a point has the most since the one before it, so a peak is not lost by joining.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import orjson

MAX_POINTS = 200
FIRST_INTERVAL_MS = 500


@dataclass(frozen=True, slots=True)
class Sample:
    """One look; None where the kernel does not tell."""

    at_ms: int
    """Since the epoch."""
    cpu_ms: int | None = None
    memory_bytes: int | None = None
    """Without file pages that the kernel can drop at any time."""
    pids: int | None = None
    network_rx_bytes: int | None = None
    network_tx_bytes: int | None = None
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None


_COUNTED = ("cpu_ms", "network_rx_bytes", "network_tx_bytes", "disk_read_bytes", "disk_write_bytes")
_MEASURED = ("memory_bytes", "pids")
_NAMES = tuple(field.name for field in fields(Sample))

Meter = Callable[[], Sample | None]
"""Takes a look at a running container; None when it is gone or cannot be looked at now."""


@dataclass(frozen=True, slots=True)
class Looks:
    """How a container is looked at, and how often at most."""

    look: Meter
    every_seconds: float
    is_quick: bool
    """Whether a look takes no noticeable time."""


class Recording:
    """Grows by ``add``; is read and written as JSON, so that who adopts a run goes on with it."""

    def __init__(self) -> None:
        self.interval_ms = FIRST_INTERVAL_MS
        self.points: list[Sample] = []
        self._peaks: dict[str, int] = {}
        self._attempt = 1
        self._before: dict[str, int] = {}
        """What the attempts before this one have used."""

    def begin_attempt(self, attempt: int) -> None:
        """Count on from what is there, once for each attempt: it has a container of its own, which counts from nothing."""
        if attempt > self._attempt:
            self._attempt, self._before = attempt, {name: self._peaks[name] for name in _COUNTED if name in self._peaks}

    def add(self, sample: Sample) -> None:
        """Take one more; one that is not after the last (the clock was set back) is dropped."""
        if self.points and sample.at_ms <= self.points[-1].at_ms:
            return
        counted = {name: getattr(sample, name) for name in self._before}
        sample = replace(sample, **{name: at + self._before[name] for name, at in counted.items() if at is not None})
        self.points.append(sample)
        for name in (*_COUNTED, *_MEASURED):
            if (value := getattr(sample, name)) is not None:
                self._peaks[name] = max(value, self._peaks.get(name, 0))
        if len(self.points) > MAX_POINTS:
            self._halve()

    def _halve(self) -> None:
        pairs = zip(self.points[::2], self.points[1::2], strict=False)
        odd = self.points[-1:] if len(self.points) % 2 else []
        self.points = [_joined(one, other) for one, other in pairs] + odd
        self.interval_ms *= 2

    def usage(self) -> dict[str, float | int | None]:
        """Totals and peaks so far, under the names that a run's ``usage`` has."""
        cpu_ms = self._peaks.get("cpu_ms")
        return {
            "cpu_seconds": None if cpu_ms is None else cpu_ms / 1000,
            "peak_memory_bytes": self._peaks.get("memory_bytes"),
            "peak_pids": self._peaks.get("pids"),
            **{name: self._peaks.get(name) for name in _COUNTED if name != "cpu_ms"},
        }

    def dump(self) -> bytes:
        """As JSON: the fields' names once, then a row a point."""
        rows = [list(asdict(point).values()) for point in self.points]
        return orjson.dumps(
            {
                "interval_ms": self.interval_ms,
                "peaks": self._peaks,
                "attempt": self._attempt,
                "before": self._before,
                "fields": _NAMES,
                "rows": rows,
            }
        )

    @classmethod
    def load(cls, data: bytes) -> "Recording":
        """From what ``dump`` made, in this version or an earlier one."""
        kept: dict[str, Any] = orjson.loads(data)
        recording = cls()
        recording.interval_ms, recording._peaks = kept["interval_ms"], kept["peaks"]
        recording._attempt, recording._before = kept.get("attempt", 1), kept.get("before", {})
        for row in kept["rows"]:
            values = {name: value for name, value in zip(kept["fields"], row, strict=True) if name in _NAMES}
            recording.points.append(Sample(**values))
        return recording


def _joined(one: Sample, other: Sample) -> Sample:
    values = asdict(other)
    for name in _MEASURED:
        known = [value for value in (getattr(one, name), getattr(other, name)) if value is not None]
        values[name] = max(known, default=None)
    return Sample(**values)
