"""A run's use of the machine as small graphs, one character a piece of its time."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cli.human import duration, parse_time, size

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Bars from zero to the most; of several values in one place the largest is shown."""
    if not values:
        return ""
    width = min(width, len(values))
    places = [values[n * len(values) // width : (n + 1) * len(values) // width] for n in range(width)]
    most = max(values) or 1
    return "".join(_BARS[round(max(place) / most * (len(_BARS) - 1))] for place in places)


def graphs(samples: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Name and graph of what was recorded, each with its peak; nothing of what there is too little of."""
    if len(samples) < 2:
        return []
    times = [parse_time(sample["at"]).timestamp() for sample in samples]
    found: list[tuple[str, list[float], Callable[[float], str]]] = [
        ("cpu", _rates(times, samples, "cpu_seconds"), lambda most: f"{most * 100:.0f} %"),
        ("memory", _values(samples, "memory_bytes"), lambda most: size(round(most))),
        ("processes", _values(samples, "pids"), lambda most: f"{most:.0f}"),
        ("network", _rates(times, samples, "network_rx_bytes", "network_tx_bytes"), _a_second),
        ("disk", _rates(times, samples, "disk_read_bytes", "disk_write_bytes"), _a_second),
    ]
    shown = [
        (name, f"{sparkline(values)}  at most {words(max(values))}") for name, values, words in found if any(values)
    ]
    return [*shown, ("", f"over {duration((times[-1] - times[0]) * 1000)}")] if shown else []


def _a_second(most: float) -> str:
    return f"{size(round(most))}/s"


def _values(samples: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [float(sample[name]) for sample in samples if sample[name] is not None]


def _rates(times: Sequence[float], samples: Sequence[Mapping[str, Any]], *names: str) -> list[float]:
    """A second, between each two samples, of what is counted from the start."""
    totals = [
        (at, sum(float(sample[name]) for name in names))
        for at, sample in zip(times, samples, strict=True)
        if all(sample[name] is not None for name in names)
    ]
    return [max(0.0, (b - a) / (until - at)) for (at, a), (until, b) in itertools.pairwise(totals) if until > at]
