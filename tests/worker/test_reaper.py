"""The sweep that goes on whatever it meets."""

import asyncio

import pytest

from crewship.errors import Unavailable
from worker import reaper


async def test_nothing_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "EVERY_SECONDS", 0.01)
    swept, loop = asyncio.Event(), asyncio.get_running_loop()
    failures: list[Exception] = [Unavailable("The container engine (Docker) cannot be reached"), TimeoutError()]

    def sweep() -> int:
        if failures:
            raise failures.pop(0)
        loop.call_soon_threadsafe(swept.set)
        return 0

    reaping = asyncio.create_task(reaper.reap(sweep))
    async with asyncio.timeout(10):
        await swept.wait()
    reaping.cancel()
