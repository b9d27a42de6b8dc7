"""Upkeep of one container host."""

from sqlalchemy import Engine as Database
from sqlmodel import select
from temporalio import activity

from activities.spares import SPARE_PREFIX
from crewship.contracts import container_name
from crewship.db import session as transaction
from crewship.engine import Engine
from crewship.models import Run

_RUN_PREFIX = container_name("run_", 0)[:-2]


class MaintenanceActivities:
    def __init__(self, *, engine: Engine, database: Database) -> None:
        self._engine, self._database = engine, database

    @activity.defn
    def sweep_containers(self) -> int:
        """Remove this installation's containers whose run is over; how many.

        Correctness: idempotent. A container goes only when its run's row is closed (its log archived, its files collected) or is
        not there at all; a run that is open is its workflow's business.
        """
        removed = 0
        for container in self._engine.list():
            if container.name.startswith(_RUN_PREFIX) and not self._is_open(container.name):
                self._engine.remove(container.name)
                removed += 1
        return removed

    def remove_spares(self) -> None:
        """Spares that a worker left behind when it was killed; called before a worker makes its own."""
        for container in self._engine.list():
            if container.name.startswith(SPARE_PREFIX):
                self._engine.remove(container.name)

    def _is_open(self, name: str) -> bool:
        run_id = "run_" + name.removeprefix(_RUN_PREFIX).rsplit("-", 1)[0]
        with transaction(self._database) as session:
            last_seq = session.exec(select(Run.id, Run.last_seq).where(Run.id == run_id)).first()
        return last_seq is not None and last_seq[1] is None
