"""Tells the records that this host is there, whether its container engine answers, and whether its network lets runs start.

The second and the third at once when they change. The first every ten seconds: what runs on a host that was not seen for
long is given up
(``activities.abandoned``).
"""

import asyncio
import logging
import time
from dataclasses import replace

from sqlalchemy import Engine as Database

from activities.closed_network import ClosedNetwork
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


async def watch_engine(
    engine: Engine,
    database: Database,
    host: str,
    network: Network | None = None,
    closed: ClosedNetwork | None = None,
) -> None:
    """Until cancelled."""
    known: tuple[str | None, HostNetwork | None] | None = None
    told_at = 0.0
    at_all, closed_one = _Patience(), _Patience()
    while True:
        try:
            problem, around = await asyncio.to_thread(_problem, engine), _network(network, closed)
            shown = around and replace(
                around,
                problem=at_all.shown(around.problem),
                closed_problem=closed_one.shown(around.closed_problem),
            )
            if (problem, shown) != known or time.monotonic() - told_at >= SEEN_SECONDS:
                await asyncio.to_thread(_record, database, host, problem, shown)
                known, told_at = (problem, shown), time.monotonic()
        except CrewshipError as error:
            logger.warning("the engine's state could not be recorded: %s", error.detail)
        except Exception:  # whatever it is: without this the host would be taken for gone
            logger.exception("the engine's state could not be recorded")
        await asyncio.sleep(EVERY_SECONDS)


class _Patience:
    """A guard, or a proxy, that is started again is away for a moment, which refuses nobody: what waits for it goes on then."""

    def __init__(self) -> None:
        self._well_at = time.monotonic()

    def shown(self, problem: str | None) -> str | None:
        """``problem`` once it has been there for a while."""
        if problem is None:
            self._well_at = time.monotonic()
        return problem if time.monotonic() - self._well_at >= PATIENCE_SECONDS else None


def record_host(engine: Engine, database: Database, host: str) -> None:
    """Once: before a worker takes work, so that nobody takes a host that comes back for one that is gone."""
    _record(database, host, _problem(engine), None)


def _problem(engine: Engine) -> str | None:
    try:
        engine.check()
    except CrewshipError as error:
        return error.detail
    return None


def _network(network: Network | None, closed: ClosedNetwork | None) -> HostNetwork | None:
    if network is None:
        return None
    trouble, restricted = network.trouble(), closed.trouble() if closed is not None else None
    return HostNetwork(
        problem=trouble.detail if trouble is not None else None,
        hint=trouble.hint if trouble is not None else None,
        loosened=tuple(network.loosened()),
        closed_problem=restricted.detail if restricted is not None else None,
        closed_hint=restricted.hint if restricted is not None else None,
    )


def _record(database: Database, host: str, problem: str | None, network: HostNetwork | None) -> None:
    with transaction(database) as session:
        record_engine(session, host, problem, network)
