"""The outbox against a plain list: whatever is added, acknowledged, replayed and written, a reader misses nothing."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.outbox import FRAME_COST_BYTES, Outbox, Ring


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def drain(reader: int) -> bytes:
    data = b""
    while True:
        try:
            data += os.read(reader, 1 << 20)
        except BlockingIOError:
            return data


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3000)),
        st.tuples(st.just("ack"), st.integers(0, 100)),
        st.tuples(st.just("replay"), st.integers(0, 100)),
        st.tuples(st.just("write"), st.just(0)),
        st.tuples(st.just("read"), st.integers(1, 5000)),
    ),
    max_size=80,
)


@given(STEPS)
@settings(deadline=None)
def test_against_a_list(steps: list[tuple[str, int]]) -> None:
    """The reader takes whole lines, drops what it has, and asks again when it finds a gap, as the platform does."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    outbox = Outbox("k", [b"/tmp"], memory_limit_bytes=4000, spill_limit_bytes=6000)
    made: dict[int, bytes] = {}
    got: dict[int, bytes] = {}
    rest = b""

    def take(data: bytes) -> None:
        nonlocal rest
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            n = json.loads(line)["n"]
            assert made.setdefault(n, line) == line  # n → bytes is a function
            if n == len(got) + 1:
                got[n] = line

    try:
        for step, number in steps:
            if step == "add":
                n = outbox.add("log", {"text": "x" * number})
                assert n == outbox.last
            elif step == "ack":
                outbox.acknowledge(min(number, len(got)))
            elif step == "replay":
                outbox.replay(number)
            elif step == "write":
                outbox.write(writer)
            else:
                try:
                    take(os.read(reader, number))
                except BlockingIOError:
                    pass
        while len(got) < outbox.last:  # a reader that attaches anew
            outbox.replay(len(got))
            outbox.write(writer)
            take(drain(reader))
        assert sorted(got) == list(range(1, outbox.last + 1))
        outbox.acknowledge(outbox.last)
        assert not outbox.full
    finally:
        os.close(reader)
        os.close(writer)


def test_full_and_free_again(pipe: tuple[int, int]) -> None:
    outbox = Outbox("k", [b"/tmp"], memory_limit_bytes=10_000, spill_limit_bytes=20_000)
    while not outbox.full:
        outbox.add("log", {"text": "x" * 900})
    assert 28 < outbox.last < 34
    more = outbox.add("end", {})  # the supervisor's own frames always find a place
    outbox.acknowledge(5)
    assert not outbox.full
    reader, writer = pipe
    outbox.write(writer)
    assert [json.loads(line)["n"] for line in drain(reader).splitlines()] == list(range(6, more + 1))


def test_many_small_frames_do_not_fill_the_memory_with_their_index() -> None:
    outbox = Outbox("k", [b"/tmp"])
    while not outbox.full:
        outbox.add("started", {})
    assert outbox.last * FRAME_COST_BYTES < 32 << 20


def test_a_ring_without_a_place_to_write_has_no_room(tmp_path: Path) -> None:
    ring = Ring([os.fsencode(tmp_path / "missing")], 1000)
    assert ring.put(b"x") is None


def test_a_ring_wraps(tmp_path: Path) -> None:
    ring = Ring([os.fsencode(tmp_path)], 100)
    held = [ring.put(bytes([65 + n]) * 30) for n in range(3)]
    assert held == [0, 30, 60]
    assert ring.put(b"x" * 30) is None
    ring.free(0)
    assert ring.put(b"w" * 30) == 0
    assert ring.put(b"y") is None  # full to the byte before the oldest
    assert ring.get(30) == b"B" * 30
    assert ring.get(0) == b"w" * 30
    assert os.listdir(tmp_path) == []  # nothing that the crew could find
