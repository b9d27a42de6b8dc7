"""Sizes in bytes, as people read them and as ``crewship.toml`` has them."""

from typing import Final

_UNITS: Final = (("g", "GiB", 1 << 30), ("m", "MiB", 1 << 20), ("k", "KiB", 1 << 10))


def shown(size_bytes: int) -> str:
    """``512 MiB``, ``1.5 GiB``, ``12 bytes``."""
    for _, unit, factor in _UNITS:
        if size_bytes >= factor:
            return f"{round(size_bytes / factor, 1):g} {unit}"
    return f"{size_bytes} bytes"


def written(size_bytes: int) -> str:
    """``1g``, ``1536m``: exactly ``size_bytes`` in the largest unit that can say it."""
    for letter, _, factor in _UNITS:
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{letter}"
    return str(size_bytes)
