from datetime import UTC, datetime

import pytest

from cli.human import age, clock, count, duration, memory, size, waiting


@pytest.mark.parametrize(
    ("milliseconds", "said", "margin"),
    [
        (0, "0 ms", "0.0s"),
        (45, "45 ms", "0.0s"),
        (3249, "3.2 s", "3.2s"),
        (59_949, "59.9 s", "59.9s"),
        (59_950, "1 min 00 s", "1:00"),
        (252_000, "4 min 12 s", "4:12"),
        (7_500_000, "2 h 05 min", "2:05:00"),
    ],
)
def test_durations(milliseconds: int, said: str, margin: str) -> None:
    assert duration(milliseconds) == said
    assert clock(milliseconds) == margin


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345, "12.3 kB"), (999_990, "1.0 MB"), (5 * 10**9, "5.0 GB")],
)
def test_sizes(size_bytes: int, said: str) -> None:
    assert size(size_bytes) == said


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [(1 << 30, "1 GiB"), (512 << 20, "512 MiB"), (3 << 29, "1.5 GiB"), (53_792_000, "51.3 MiB"), (100_000, "0.1 MiB")],
)
def test_memory(size_bytes: int, said: str) -> None:
    assert memory(size_bytes) == said


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("2026-01-31T12:00:00.000Z", "now"),
        ("2026-01-31T11:59:48.000Z", "12 s ago"),
        ("2026-01-31T11:56:00.000Z", "4 min ago"),
        ("2026-01-31T09:00:00.000Z", "3 h ago"),
        ("2026-01-26T09:00:00.000Z", "5 d ago"),
        (None, "-"),
    ],
)
def test_ages(then: str | None, said: str) -> None:
    assert age(then, datetime(2026, 1, 31, 12, tzinfo=UTC)) == said


def test_counts() -> None:
    assert count(1, "file") == "1 file"
    assert count(1234, "file") == "1,234 files"


@pytest.mark.parametrize(
    ("reason", "position", "said"),
    [
        ("capacity", 2, "a free slot, number 2 in the queue"),
        ("project_concurrency", 1, "a place in its project, number 1 in the queue"),
        ("starting", 0, "starting"),
    ],
)
def test_what_a_run_waits_for(reason: str, position: int, said: str) -> None:
    assert waiting({"reason": reason, "position": position}) == said
    assert waiting({}) == ""
