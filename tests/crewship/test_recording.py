"""A recording is bounded, loses no peak and no total, and can be gone on with."""

from hypothesis import given
from hypothesis import strategies as st

from crewship.recording import FIRST_INTERVAL_MS, MAX_POINTS, Recording, Sample


def test_an_empty_one_tells_nothing() -> None:
    recording = Recording()
    assert set(recording.usage().values()) == {None}
    assert Recording.load(recording.dump()).points == []


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 300)), min_size=1, max_size=2000))
def test_it_keeps_the_peaks_and_its_bounds(values: list[tuple[int, int]]) -> None:
    recording = Recording()
    for number, (memory, pids) in enumerate(values):
        recording.add(Sample(at_ms=1000 + number, cpu_ms=number, memory_bytes=memory, pids=pids))
    assert len(recording.points) <= MAX_POINTS
    assert len(recording.points) > min(len(values), MAX_POINTS // 2) - 1
    assert max(point.memory_bytes or 0 for point in recording.points) == max(memory for memory, _ in values)
    assert recording.points[-1].at_ms == 1000 + len(values) - 1
    usage = recording.usage()
    assert usage["peak_memory_bytes"] == max(memory for memory, _ in values)
    assert usage["peak_pids"] == max(pids for _, pids in values)
    assert usage["cpu_seconds"] == (len(values) - 1) / 1000
    assert usage["network_rx_bytes"] is None
    again = Recording.load(recording.dump())
    assert (again.points, again.interval_ms, again.usage()) == (recording.points, recording.interval_ms, usage)


def test_the_interval_doubles_when_it_is_full() -> None:
    recording = Recording()
    for number in range(MAX_POINTS + 1):
        recording.add(Sample(at_ms=number))
    assert (recording.interval_ms, len(recording.points)) == (2 * FIRST_INTERVAL_MS, MAX_POINTS // 2 + 1)


def test_counters_do_not_go_back_and_neither_does_time() -> None:
    recording = Recording()
    for at, sent in ((1, 10), (2, 30), (2, 99), (1, 99), (3, 20)):
        recording.add(Sample(at_ms=at, network_tx_bytes=sent))
    assert [point.at_ms for point in recording.points] == [1, 2, 3]
    assert recording.usage()["network_tx_bytes"] == 30


def test_a_further_attempt_counts_on_and_one_that_is_adopted_does_not_count_twice() -> None:
    recording = Recording()
    recording.add(Sample(at_ms=1, cpu_ms=700, memory_bytes=9, pids=3))
    for at, cpu_ms in ((2, 100), (3, 300)):
        recording = Recording.load(recording.dump())
        recording.begin_attempt(2)
        recording.add(Sample(at_ms=at, cpu_ms=cpu_ms, memory_bytes=5, network_rx_bytes=40))
    assert [point.cpu_ms for point in recording.points] == [700, 800, 1000]
    usage = recording.usage()
    assert (usage["cpu_seconds"], usage["peak_memory_bytes"], usage["network_rx_bytes"]) == (1, 9, 40)
