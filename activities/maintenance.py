"""Upkeep of one container host: no container outlives what it was made for.

Every ten seconds the worker looks (``worker.reaper``), so what is left behind, by a worker that was killed or by an engine that
was, goes within that time once its run is over, or once there is a worker again.
"""

import logging
import re
from collections.abc import Callable, Iterable

from sqlalchemy import Engine as Database
from temporalio import activity

from activities.open_logs import still_open
from crewship.engine import Engine
from crewship.errors import Unavailable

logger = logging.getLogger(__name__)

_NAME = re.compile(r"crewship-(?:run|smoke|build)-(?:dep-)?(?P<id>[a-z0-9]+)(?:-|$)")
"""Of a container that belongs to a run, or to a deployment that is being built."""


def owner(name: str) -> str | None:
    """Id of the run or the deployment that a container of ours was made for; None when its name tells of neither."""
    found = _NAME.match(name)
    if found is None:
        return None
    return f"{'run' if name.startswith('crewship-run-') else 'dep'}_{found['id']}"


def strays(names: Iterable[str], at_work: set[str], in_hand: set[str]) -> list[str]:
    """Which of this installation's containers belong to nothing any more.

    Args:
        names: Its containers.
        at_work: Ids of its runs and deployments whose logs are open.
        in_hand: Names of those that the worker has started ahead.
    """
    return [name for name in names if name not in in_hand and owner(name) not in at_work]


class MaintenanceActivities:
    """Of one container host.

    Args:
        in_hand: Names of the containers that the worker has started ahead.
        forget_ended: Called at each sweep.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        database: Database,
        in_hand: Callable[[], set[str]],
        forget_ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine, self._database, self._in_hand = engine, database, in_hand
        self._forget_ended = forget_ended

    @activity.defn
    def sweep_containers(self) -> int:
        """Remove this installation's containers that belong to nothing any more; how many.

        Correctness: idempotent. A run's container goes only when its row is closed (its log archived, its files collected) or is
        not there at all, one of a build or a smoke boot by its deployment's row, one that was started ahead when this worker does
        not hold it. Names are listed before rows are read, and a row is there before its container; what was started ahead and is
        taken meanwhile has another name by then.
        """
        names = self._engine.names()
        made_for = {found for name in names if (found := owner(name)) is not None}
        stray = strays(names, still_open(self._database, made_for), self._in_hand())
        failed: Unavailable | None = None
        for name in stray:
            try:
                self._engine.remove(name)
            except Unavailable as error:  # one that the engine cannot take down keeps none of the others
                logger.warning("%s stays until the next sweep: %s", name, error.detail)
                failed = error
        self._forget_ended()
        if failed is not None:
            raise failed
        return len(stray)
