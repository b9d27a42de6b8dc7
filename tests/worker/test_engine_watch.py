"""What the worker tells of its engine, and what the API makes of it."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from crewship import db
from crewship.errors import Unavailable
from crewship.hosts import HostNetwork, record_engine, require_any_engine, require_engine, require_networks
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


class Network:
    """One whose guard went away, when ``lost``."""

    lost = False

    def trouble(self) -> Unavailable | None:
        return Unavailable("No network guard is heard", hint="start it") if self.lost else None

    def loosened(self) -> list[str]:
        return ["CREWSHIP_NETWORK_REACH=10.0.0.5"]


async def test_a_network_whose_guard_goes_away_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_watch, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(engine_watch, "PATIENCE_SECONDS", 0.05)
    database = db.open_database(f"sqlite:///{tmp_path / 'db'}")
    db.migrate(database)
    network = Network()

    def told() -> str | None:
        with db.session(database) as session:
            try:
                require_engine(session, "here")
                return require_networks(session)
            except Unavailable as error:
                return f"{error.detail} ({error.hint})"

    async def until(expected: str) -> None:
        async with asyncio.timeout(10):
            while told() != expected:
                await asyncio.sleep(0.01)

    assert told() is None
    watch = asyncio.create_task(
        engine_watch.watch_engine(Engine(), database, "here", network)  # type: ignore[arg-type]
    )
    try:
        loosened = "loosened by CREWSHIP_NETWORK_REACH=10.0.0.5 on here"
        await until(loosened)
        network.lost = True
        await until("Host 'here' starts nothing: No network guard is heard (start it)")
        network.lost = False
        await until(loosened)
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        database.dispose()


def test_all_hosts_networks_are_told_of(tmp_path: Path) -> None:
    database = db.open_database(f"sqlite:///{tmp_path / 'db'}")
    db.migrate(database)
    with db.session(database) as session:
        for name in ("a", "b"):
            record_engine(session, name, None, HostNetwork(loosened=("CREWSHIP_NETWORK_GUARD=off",)))
    with db.session(database) as session:
        assert require_networks(session) == (
            "loosened by CREWSHIP_NETWORK_GUARD=off on a, CREWSHIP_NETWORK_GUARD=off on b"
        )
        record_engine(session, "b", None, HostNetwork("the host can be reached", "mend it"))
        require_engine(session, "a")
        with pytest.raises(Unavailable, match="'b' starts nothing: the host can be reached"):
            require_engine(session, "b")
    with db.session(database) as session:
        record_engine(session, "a", None, HostNetwork(closed_problem="There is no squid", closed_hint="install it"))
        record_engine(session, "b", None, HostNetwork())
        # Runs without a list are not concerned.
        require_engine(session, "a")
        require_engine(session, "b", restricted=True)
        told = require_networks(session)
        assert told == "no run with [network] allow starts on a: There is no squid (install it)"
        with pytest.raises(Unavailable, match=r"'a' starts no run with \[network\] allow: There is no squid"):
            require_engine(session, "a", restricted=True)
    database.dispose()


async def test_nothing_ends_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose watch has ended would be taken for gone."""
    monkeypatch.setattr(engine_watch, "EVERY_SECONDS", 0.01)
    recorded = asyncio.Event()
    failures: list[Exception] = [ValueError("whatever it is"), Unavailable("The database cannot be reached")]

    def record(*_: object) -> None:
        if failures:
            raise failures.pop(0)
        loop.call_soon_threadsafe(recorded.set)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(engine_watch, "_record", record)
    watch = asyncio.create_task(engine_watch.watch_engine(Engine(), None, "here"))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        await recorded.wait()
    watch.cancel()
