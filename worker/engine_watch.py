"""Tells the records whether this host's container engine answers; writes only when that changes."""

import asyncio
import logging

from sqlalchemy import Engine as Database

from crewship.db import session as transaction
from crewship.engine import Engine
from crewship.errors import CrewshipError
from crewship.hosts import record_engine

logger = logging.getLogger(__name__)

EVERY_SECONDS = 2.0
_UNKNOWN = ""


async def watch_engine(engine: Engine, database: Database, host: str) -> None:
    """Until cancelled."""
    known: str | None = _UNKNOWN
    while True:
        problem = await asyncio.to_thread(_problem, engine)
        if problem != known:
            try:
                await asyncio.to_thread(_record, database, host, problem)
                known = problem
            except CrewshipError as error:
                logger.warning("the engine's state could not be recorded: %s", error.detail)
        await asyncio.sleep(EVERY_SECONDS)


def _problem(engine: Engine) -> str | None:
    try:
        engine.check()
    except CrewshipError as error:
        return error.detail
    return None


def _record(database: Database, host: str, problem: str | None) -> None:
    with transaction(database) as session:
        record_engine(session, host, problem)
