"""What a run's container activity writes into the run's row, and reads back when it adopts."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine as Database
from sqlalchemy import func, update
from sqlmodel import col

from crewship.clock import from_ms, now
from crewship.db import session as transaction
from crewship.models import Run

_WRITERS = ThreadPoolExecutor(4, thread_name_prefix="records")
"""Commits that go on beside what the container does meanwhile."""
_DESCRIBERS = ThreadPoolExecutor(4, thread_name_prefix="isolation")


class LaunchedElsewhere(Exception):
    """Another worker launched this attempt since its row was read."""


class RunRecords:
    """The row of one run, as one attempt of it may write it. Each call is one short transaction; all may be repeated."""

    def __init__(self, database: Database, run_id: str, attempt: int) -> None:
        self._database, self._run_id, self._attempt = database, run_id, attempt

    def launch(self) -> "Future[None]":
        """Record that a container of this attempt is about to start; under way when this returns.

        The result raises ``LaunchedElsewhere`` when one was recorded already, so that of two workers that both found nothing
        launched one alone goes on.
        """
        return _WRITERS.submit(self._launch)

    def _launch(self) -> None:
        change = update(Run).where(
            col(Run.id) == self._run_id,
            (col(Run.attempt) < self._attempt) | ((col(Run.attempt) == self._attempt) & col(Run.launched_at).is_(None)),
            col(Run.last_seq).is_(None),
        )
        values: dict[str, Any] = {"launched_at": now(), "attempt": self._attempt}
        if self._attempt > 1:  # what the last one left is not this one's
            values |= {"attempt_started_at": None, "output": None, "traceback": None}
        with transaction(self._database) as session:
            if session.exec(change.values(**values)).rowcount == 0:
                raise LaunchedElsewhere(self._run_id)

    def started(self, at_ms: int) -> "Future[None]":
        """Phase 2 began: the run is running."""
        at = from_ms(at_ms)
        first = func.coalesce(col(Run.started_at), at)
        return _WRITERS.submit(self._update, status="running", started_at=first, attempt_started_at=at)

    def isolation(self, facts: Callable[[], dict[str, Any]]) -> "Future[None]":
        """How the container is confined; ``facts`` may take its time, the run waits for neither."""
        return _DESCRIBERS.submit(lambda: self._update(isolation=facts()))

    def result(self, output: Any, traceback: str | None) -> None:
        """What the crew gave; written before the frame is acknowledged, so it cannot be lost."""
        # A text of PostgreSQL has no NUL; what a model or a file said may be in a traceback.
        self._update(output=output, traceback=None if traceback is None else traceback.replace("\0", "\\x00"))

    def usage(self, so_far: dict[str, Any]) -> None:
        """What it has used, as far as it was recorded; a closed run's stays as it is."""
        with transaction(self._database) as session:
            session.exec(
                update(Run).where(col(Run.id) == self._run_id, col(Run.last_seq).is_(None)).values(usage=so_far)
            )

    def started_at_ms(self) -> int | None:
        row = self._row()
        if row is None or row.attempt != self._attempt or row.attempt_started_at is None:
            return None
        return self.to_ms(row.attempt_started_at)

    def launched_at_ms(self) -> int | None:
        """When this attempt's container was about to start."""
        row = self._row()
        if row is None or row.attempt != self._attempt or row.launched_at is None:
            return None
        return self.to_ms(row.launched_at)

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
        change = update(Run).where(col(Run.id) == self._run_id, col(Run.attempt) == self._attempt)
        if "status" in values:
            change = change.where(col(Run.status).in_(("pending", "running")))
        with transaction(self._database) as session:
            session.exec(change.values(**values))
