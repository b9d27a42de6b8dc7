"""What a run's container activity writes into the run's row, and reads back when it adopts."""

from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine as Database
from sqlalchemy import update
from sqlmodel import col

from crewship.clock import from_ms, now
from crewship.db import session as transaction
from crewship.models import Run

_WRITERS = ThreadPoolExecutor(4, thread_name_prefix="records")
"""Commits that go on beside what the container does meanwhile."""


class RunRecords:
    """The row of one run. Each call is one short transaction; all may be repeated."""

    def __init__(self, database: Database, run_id: str) -> None:
        self._database, self._run_id = database, run_id

    def launch(self, nonce: str) -> "Future[None]":
        """Record that a container is about to start; under way when this returns."""
        return _WRITERS.submit(self._update, launched_at=now(), nonce=nonce)

    def started(self, at_ms: int) -> "Future[None]":
        """Phase 2 began: the run is running."""
        return _WRITERS.submit(self._update, status="running", started_at=from_ms(at_ms))

    def isolation(self, facts: dict[str, Any]) -> "Future[None]":
        return _WRITERS.submit(self._update, isolation=facts)

    def result(self, output: Any, traceback: str | None) -> None:
        """What the crew gave; written before the frame is acknowledged, so it cannot be lost."""
        self._update(output=output, traceback=traceback)

    def usage(self, so_far: dict[str, Any]) -> None:
        """What it has used, as far as it was recorded; a closed run's stays as it is."""
        with transaction(self._database) as session:
            session.exec(
                update(Run).where(col(Run.id) == self._run_id, col(Run.last_seq).is_(None)).values(usage=so_far)
            )

    def nonce(self) -> str:
        row = self._row()
        return row.nonce or "" if row is not None else ""

    def started_at_ms(self) -> int | None:
        row = self._row()
        return None if row is None or row.started_at is None else self.to_ms(row.started_at)

    def was_started(self) -> bool:
        return self.started_at_ms() is not None

    def running_seconds(self) -> float:
        """Since phase 2 began; 0 before."""
        started_at = self.started_at_ms()
        return 0.0 if started_at is None else max(0.0, (self.to_ms(now()) - started_at) / 1000)

    @staticmethod
    def to_ms(moment: datetime) -> int:
        """Milliseconds since the epoch; naive is UTC."""
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)

    def _row(self) -> Run | None:
        with transaction(self._database) as session:
            return session.get(Run, self._run_id)

    def _update(self, **values: Any) -> None:
        change = update(Run).where(col(Run.id) == self._run_id)
        if "status" in values:
            change = change.where(col(Run.status) == "pending")
        with transaction(self._database) as session:
            session.exec(change.values(**values))
