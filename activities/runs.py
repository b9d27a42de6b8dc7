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
from crewship.clock import now
from crewship.contracts import CloseRunInput, DeployInput, RunInput, run_workflow_id
from crewship.db import session as transaction
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
        terminal event only when the row says that the log is closed, so who saw it also sees the run's final state.
        """
        with Pulse():
            self._close(close)

    def _close(self, close: CloseRunInput) -> None:
        workflow_id = run_workflow_id(close.run_id)
        last_seq = archive_log(workflow_id, bridge=self._bridge, store=self._store)
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
                run.traceback = run.nonce = None
                if close.usage:
                    # What the supervisor told is exact, but it may have been killed before it could.
                    run.usage = {**close.usage, **run.usage, **{k: v for k, v in close.usage.items() if v is not None}}
                session.add(run)
        self._tail.publish(workflow_id, b'{"closed":true}')

    @activity.defn
    def reconcile(self) -> int:
        """Start the workflows of rows that were written and then left; how many.

        Correctness: idempotent; starting a workflow twice is harmless, its id is derived from the row's.
        """
        before = now() - _ORPHAN_AGE
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
            self._start(temporal.start_run(self._bridge.client, self.run_input(run, deployment, self._settings)))
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

    @staticmethod
    def run_input(run: Run, deployment: Deployment, settings: Settings) -> RunInput:
        return RunInput(
            run_id=run.id,
            project=run.project,
            deployment_id=run.deployment_id,
            host=deployment.host,
            timeout_seconds=run.timeout_seconds,
            grace_seconds=settings.grace_seconds,
        )

    def _start(self, call: Any) -> None:
        self._bridge.run(call)
