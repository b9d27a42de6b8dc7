"""Sizes as people read them, and as crewship.toml has them."""

import pytest

from crewship import sizes
from crewship.config import size_bytes


@pytest.mark.parametrize(
    ("size", "shown"),
    [(12, "12 bytes"), (1 << 10, "1 KiB"), (512 << 20, "512 MiB"), (3 << 29, "1.5 GiB"), (2000 << 30, "2000 GiB")],
)
def test_for_people(size: int, shown: str) -> None:
    assert sizes.shown(size) == shown


@pytest.mark.parametrize("size", [1, 1000, 1 << 10, 3 << 29, 1 << 30, (1 << 30) + 1, 100 << 30])
def test_what_is_written_is_read_back(size: int) -> None:
    assert size_bytes(sizes.written(size)) == size


def test_the_largest_unit_is_written() -> None:
    assert [sizes.written(size) for size in (1 << 30, 3 << 29, 64 << 10)] == ["1g", "1536m", "64k"]
