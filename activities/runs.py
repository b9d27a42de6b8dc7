"""Activities that touch only records: close a run, find runs that nobody started."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine as Database
from sqlmodel import col, select
from temporalio import activity

from activities.archiving import archive_log
from activities.bridge import TemporalBridge
from activities.pulse import Pulse
from crewship import temporal
from crewship.admission import ACTIVE, admit, held, run_input
from crewship.clock import now
from crewship.contracts import CloseRunInput, DeployInput, run_workflow_id
from crewship.db import session as transaction
from crewship.errors import NotFound, Unavailable
from crewship.models import Deployment, Run
from crewship.settings import Settings
from crewship.storage import ObjectStore
from crewship.tail import TailPublisher

_ORPHAN_AGE = timedelta(seconds=30)
"""A row this old without a workflow was left by an API process that died between the two."""


class RunActivities:
    """Bound to the database, the object store and Temporal; may run on any worker."""

    def __init__(
        self, *, store: ObjectStore, database: Database, tail: TailPublisher, bridge: TemporalBridge, settings: Settings
    ) -> None:
        self._store, self._database, self._tail, self._bridge, self._settings = store, database, tail, bridge, settings

    @activity.defn
    def close_run(self, close: CloseRunInput) -> None:
        """Archive the log, then record the terminal state, then tell the readers.

        Correctness: idempotent. The archive is a function of the log, and a terminal row is not changed again. Readers see the
        terminal event only when the row says that the log is closed, so who saw it also sees the run's final state. As a local
        activity it may be called before its workflow's task is durable, and again by another one: a log that is closed is not
        archived again, nor that of a run that is deleted.
        """
        with Pulse():
            self._close(close)

    def _close(self, close: CloseRunInput) -> None:
        workflow_id = run_workflow_id(close.run_id)
        with transaction(self._database) as session:
            run = session.get(Run, close.run_id)
        if run is not None and run.last_seq is None:
            last_seq = archive_log(workflow_id, bridge=self._bridge, store=self._store, known=close.log)
            run = self._record(close, last_seq)
        self._tail.publish(workflow_id, b'{"closed":true}')
        if run is not None and run.concurrency is not None:
            self._admit(run.project)

    def _record(self, close: CloseRunInput, last_seq: int) -> Run | None:
        with transaction(self._database) as session:
            run = session.get(Run, close.run_id)
            if run is not None and run.last_seq is None:
                run.status = close.status
                run.completed_at = datetime.fromisoformat(close.completed_at)
                run.duration_ms = close.duration_ms
                run.last_seq = last_seq
                run.cancel = close.cancel.model_dump() if close.cancel else None
                if close.error is not None:
                    run.error = {**close.error.model_dump(), "traceback": run.traceback}
                if close.status != "succeeded":
                    run.output = None
                run.traceback = None
                if close.usage:
                    # What the supervisor told is exact, but it may have been killed before it could.
                    run.usage = {**close.usage, **run.usage, **{k: v for k, v in close.usage.items() if v is not None}}
                session.add(run)
        return run

    @activity.defn
    def reconcile(self) -> int:
        """Start the workflows of rows that were written and then left; how many. Tell runs that were admitted and not told.

        Correctness: idempotent; starting a workflow twice is harmless, its id is derived from the row's, and so is admitting it.
        """
        before = now() - _ORPHAN_AGE
        with transaction(self._database) as session:
            holding = session.exec(select(Run.project).where(col(Run.status).in_(ACTIVE), held()).distinct()).all()
        for project in holding:
            self._admit(project)
        started = 0
        with transaction(self._database) as session:
            runs = session.exec(
                select(Run, Deployment)
                .join(Deployment, col(Deployment.id) == col(Run.deployment_id))
                .where(Run.status == "pending", col(Run.last_seq).is_(None), col(Run.created_at) < before)
            ).all()
            deployments = session.exec(
                select(Deployment).where(Deployment.status == "pending", col(Deployment.created_at) < before)
            ).all()
        for run, deployment in runs:
            start = temporal.admit_run if run.admitted_at is not None and self._is_held(run.id) else temporal.start_run
            self._start(start(self._bridge.client, run_input(run, deployment.host, self._settings)))
            started += 1
        for deployment in deployments:
            deploy = DeployInput(
                deployment_id=deployment.id,
                project=deployment.project,
                host=deployment.host,
                activate=deployment.activate,
                actor=deployment.created_by,
            )
            self._start(temporal.start_deploy(self._bridge.client, deploy))
            started += 1
        return started

    def _admit(self, project: str) -> None:
        """Give the places of ``project`` that are free, and tell whoever got one."""
        with transaction(self._database) as session:
            admitted = [
                run_input(run, session.get_one(Deployment, run.deployment_id).host, self._settings)
                for run in admit(session, project)
            ]
        for run in admitted:
            self._start(temporal.admit_run(self._bridge.client, run))

    def _is_held(self, run_id: str) -> bool:
        """Whether its workflow still waits to be told. Asked, for a signal more in each round would fill its history."""
        try:
            return self._bridge.head(run_workflow_id(run_id)).held
        except (NotFound, Unavailable):
            return False

    def _start(self, call: Any) -> None:
        self._bridge.run(call)
