"""Numbers as people read them: durations, sizes, ages."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def duration(milliseconds: float) -> str:
    """``45 ms``, ``3.2 s``, ``4 min 12 s``, ``2 h 05 min``."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 59_950:
        return f"{milliseconds / 1000:.1f} s"
    seconds = round(milliseconds / 1000)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def clock(milliseconds: float) -> str:
    """Time since the start, for the timeline's margin: ``3.2s``, ``4:12``, ``2:05:00``."""
    if milliseconds < 59_950:
        return f"{max(0.0, milliseconds) / 1000:.1f}s"
    seconds = round(milliseconds / 1000)
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02d}"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


def size(size_bytes: int) -> str:
    """``812 B``, ``12.3 kB``, ``4.0 MB``; powers of 1000, as file managers do."""
    value = float(size_bytes)
    if value < 1000:
        return f"{size_bytes} B"
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value:.1f} PB"


def memory(size_bytes: int) -> str:
    """``512 MiB``, ``1 GiB``, ``51.3 MiB``; powers of 1024, as limits are set."""
    value, unit = size_bytes / (1 << 20), "MiB"
    if value >= 1024:
        value, unit = value / 1024, "GiB"
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def parse_time(rfc3339: str) -> datetime:
    """An API time as an aware datetime."""
    return datetime.fromisoformat(rfc3339)


def age(rfc3339: str | None, now: datetime | None = None) -> str:
    """How long ago, in the largest unit: ``12 s ago``, ``3 h ago``, ``5 d ago``; ``-`` for None."""
    if not rfc3339:
        return "-"
    seconds = int(((now or datetime.now(UTC)) - parse_time(rfc3339)).total_seconds())
    if seconds < 5:
        return "now"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def until(rfc3339: str | None, now: datetime | None = None) -> str:
    """When a key ends: ``expires in 3 d``, ``expired``, ``never expires``."""
    if not rfc3339:
        return "never expires"
    seconds = int((parse_time(rfc3339) - (now or datetime.now(UTC))).total_seconds())
    if seconds < 0:
        return "expired"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"expires in {(seconds + length // 2) // length} {unit}"
    return f"expires in {seconds} s"


def count(number: int, noun: str) -> str:
    """``1 file``, ``1,234 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def waiting(waiting_for: Mapping[str, Any]) -> str:
    """``Run.waiting_for`` in words."""
    place = {"capacity": "a free slot", "project_concurrency": "a place in its project"}.get(
        waiting_for.get("reason", "")
    )
    if place is None:
        return str(waiting_for.get("reason") or "")
    return f"{place}, number {waiting_for.get('position')} in the queue"
