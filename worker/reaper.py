"""Has containers removed that belong to nothing any more: at once when the worker starts, and often from then on.

In the worker and not in a workflow, because it must go on while the workflow engine is away or has a backlog.
"""

import asyncio
import logging
from collections.abc import Callable

from crewship.errors import CrewshipError

logger = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
"""A third of what a container may outlive its run by."""


async def reap(sweep: Callable[[], int]) -> None:
    """Until cancelled."""
    while True:
        try:
            if removed := await asyncio.to_thread(sweep):
                logger.info("removed %d containers that belonged to nothing any more", removed)
        except CrewshipError as error:
            logger.warning("containers could not be swept: %s", error.detail)
        except Exception:  # whatever it is: without this nobody would sweep any more
            logger.exception("containers could not be swept")
        await asyncio.sleep(EVERY_SECONDS)
