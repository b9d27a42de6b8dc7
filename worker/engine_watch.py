"""Tells the records that this host is there, whether its container engine answers, and whether its network lets runs start.

The second and the third at once when they change. The first every ten seconds: what runs on a host that was not seen for
long is given up
(``activities.abandoned``).
"""

import asyncio
import logging
import time

from sqlalchemy import Engine as Database

from activities.network import Network
from crewship.db import session as transaction
from crewship.engine import Engine
from crewship.errors import CrewshipError
from crewship.hosts import HostNetwork, record_engine

logger = logging.getLogger(__name__)

EVERY_SECONDS = 2.0
SEEN_SECONDS = 10.0
PATIENCE_SECONDS = 10.0
"""How long nothing may be started before work is refused for it."""


async def watch_engine(engine: Engine, database: Database, host: str, network: Network | None = None) -> None:
    """Until cancelled."""
    known: tuple[str | None, HostNetwork | None] | None = None
    told_at = 0.0
    shown: HostNetwork | None = None
    well_at = time.monotonic()
    while True:
        problem, around = await asyncio.to_thread(_problem, engine), _network(network)
        # A guard that is started again is away for a moment, which refuses nobody: what waits for it goes on then.
        if around is None or around.problem is None:
            shown, well_at = around, time.monotonic()
        elif time.monotonic() - well_at >= PATIENCE_SECONDS:
            shown = around
        if (problem, shown) != known or time.monotonic() - told_at >= SEEN_SECONDS:
            try:
                await asyncio.to_thread(_record, database, host, problem, shown)
                known, told_at = (problem, shown), time.monotonic()
            except CrewshipError as error:
                logger.warning("the engine's state could not be recorded: %s", error.detail)
        await asyncio.sleep(EVERY_SECONDS)


def record_host(engine: Engine, database: Database, host: str) -> None:
    """Once: before a worker takes work, so that nobody takes a host that comes back for one that is gone."""
    _record(database, host, _problem(engine), None)


def _problem(engine: Engine) -> str | None:
    try:
        engine.check()
    except CrewshipError as error:
        return error.detail
    return None


def _network(network: Network | None) -> HostNetwork | None:
    if network is None:
        return None
    trouble = network.trouble()
    if trouble is None:
        return HostNetwork(loosened=tuple(network.loosened()))
    return HostNetwork(trouble.detail, trouble.hint, tuple(network.loosened()))


def _record(database: Database, host: str, problem: str | None, network: HostNetwork | None) -> None:
    with transaction(database) as session:
        record_engine(session, host, problem, network)
