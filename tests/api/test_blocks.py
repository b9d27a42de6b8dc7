import asyncio
import threading
from itertools import pairwise

import pytest

from api.blocks import PIECE_BYTES, Blocks
from crewship.archive import compress
from crewship.events import GENESIS, Draft, render, sse


def lines(count: int, first: int = 1, size: int = 100) -> bytes:
    return render([Draft("t", "log", {"message": "x" * size}) for _ in range(count)], first, GENESIS)[0]


async def test_a_block_is_cut_at_lines_and_nothing_is_lost() -> None:
    blocks = Blocks()
    for count in (1, 2, 700, 5000):
        whole = lines(count, first=11)
        last, frame = 10 + count, compress(whole)
        pieces = await blocks.get(f"{count}", 11, last, "ndjson", lambda frame=frame: frame)  # type: ignore[misc]
        assert b"".join(piece.body for piece in pieces) == whole
        assert pieces[0].first == 11
        assert pieces[-1].last == 10 + count
        assert all(left.last + 1 == right.first for left, right in pairwise(pieces))
        rendered = await blocks.get(f"{count}", 11, last, "sse", lambda frame=frame: frame)  # type: ignore[misc]
        assert b"".join(piece.body for piece in rendered) == sse(whole)
        assert [(piece.first, piece.last) for piece in rendered] == [(piece.first, piece.last) for piece in pieces]
        [stored] = await blocks.get(f"{count}", 11, last, "zstd", lambda frame=frame: frame)  # type: ignore[misc]
        assert (stored.first, stored.last, stored.body) == (11, last, frame)


async def test_a_line_longer_than_a_piece_stays_whole() -> None:
    whole = lines(3, size=PIECE_BYTES + 1)
    pieces = await Blocks().get("a", 1, 3, "ndjson", lambda: compress(whole))
    assert [(piece.first, piece.last) for piece in pieces] == [(1, 1), (2, 2), (3, 3)]


async def test_a_block_is_loaded_once_for_many() -> None:
    blocks, loads, go = Blocks(), [], threading.Event()

    def load() -> bytes:
        loads.append(1)
        go.wait(10)
        return compress(lines(10))

    waiting = [asyncio.create_task(blocks.get("a", 1, 10, "sse", load)) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # the one that began it
    await asyncio.sleep(0)
    go.set()
    assert len({id(await task) for task in waiting[1:]}) == 1
    assert len(loads) == 1


async def test_a_load_that_fails_is_tried_again() -> None:
    blocks = Blocks()
    answers: list[bytes | Exception] = [ValueError("no"), compress(lines(1))]

    def load() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(ValueError, match="no"):
        await blocks.get("a", 1, 1, "sse", load)
    assert len(await blocks.get("a", 1, 1, "sse", load)) == 1


async def test_what_is_held_is_bounded() -> None:
    blocks = Blocks(capacity_bytes=150_000)
    loaded: list[int] = []
    whole = lines(200)

    def load(number: int) -> bytes:
        loaded.append(number)
        return compress(whole)

    for number in (0, 1, 2, 0, 3, 4, 0, 5, 0):
        await blocks.get(str(number), 1, 200, "ndjson", lambda number=number: load(number))  # type: ignore[misc]
        assert blocks.size_bytes <= 150_000
    assert loaded == [0, 1, 2, 3, 4, 5]  # 0 was used lately each time
    huge = lines(2000)
    await blocks.get("huge", 1, 2000, "ndjson", lambda: compress(huge))
    assert blocks.size_bytes == len(huge)
