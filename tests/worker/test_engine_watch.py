"""What the worker tells of its engine, and what the API makes of it."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from crewship import db
from crewship.errors import Unavailable
from crewship.hosts import require_any_engine, require_engine
from worker import engine_watch


class Engine:
    down = False

    def check(self) -> None:
        if self.down:
            raise Unavailable("The container engine (Docker) cannot be reached")


async def test_an_engine_that_goes_away_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_watch, "EVERY_SECONDS", 0.01)
    database = db.open_database(f"sqlite:///{tmp_path / 'db'}")
    db.migrate(database)
    engine = Engine()

    def refused() -> bool:
        with db.session(database) as session:
            try:
                require_engine(session, "here")
                require_any_engine(session)
            except Unavailable as error:
                return "here" in error.detail
        return False

    async def until(expected: bool) -> None:
        async with asyncio.timeout(10):
            while refused() != expected:
                await asyncio.sleep(0.01)

    assert not refused()  # no worker has told of the host yet
    watch = asyncio.create_task(engine_watch.watch_engine(engine, database, "here"))  # type: ignore[arg-type]
    try:
        engine.down = True
        await until(True)
        engine.down = False
        await until(False)
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        database.dispose()
