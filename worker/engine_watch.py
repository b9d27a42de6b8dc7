"""Tells the records that this host is there, and whether its container engine answers.

The second at once when it changes. The first every ten seconds: what runs on a host that was not seen for long is given up
(``activities.abandoned``).
"""

import asyncio
import logging
import time

from sqlalchemy import Engine as Database

from crewship.db import session as transaction
from crewship.engine import Engine
from crewship.errors import CrewshipError
from crewship.hosts import record_engine

logger = logging.getLogger(__name__)

EVERY_SECONDS = 2.0
SEEN_SECONDS = 10.0
_UNKNOWN = ""


async def watch_engine(engine: Engine, database: Database, host: str) -> None:
    """Until cancelled."""
    known: str | None = _UNKNOWN
    told_at = 0.0
    while True:
        problem = await asyncio.to_thread(_problem, engine)
        if problem != known or time.monotonic() - told_at >= SEEN_SECONDS:
            try:
                await asyncio.to_thread(_record, database, host, problem)
                known, told_at = problem, time.monotonic()
            except CrewshipError as error:
                logger.warning("the engine's state could not be recorded: %s", error.detail)
        await asyncio.sleep(EVERY_SECONDS)


def record_host(engine: Engine, database: Database, host: str) -> None:
    """Once: before a worker takes work, so that nobody takes a host that comes back for one that is gone."""
    _record(database, host, _problem(engine))


def _problem(engine: Engine) -> str | None:
    try:
        engine.check()
    except CrewshipError as error:
        return error.detail
    return None


def _record(database: Database, host: str, problem: str | None) -> None:
    with transaction(database) as session:
        record_engine(session, host, problem)
