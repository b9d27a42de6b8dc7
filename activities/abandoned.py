"""Ends what nobody can end any more.

Two ways a run, or a build, could stay open for ever, and what is done about them:

1. *Its host is gone.* No worker takes the retry of ``run_container``, and who waits for it cannot tell a host that is gone
   from one that is busy. A host whose worker was not seen for ``host_lost_seconds`` is taken for gone: the run's workflow is
   told, gives its container up, and ends the run as ``host_lost``. A worker that has the container after all takes no notice.
   So it is with a build.
2. *Its workflow is gone* (terminated in Temporal's UI, or failed): nobody writes the last event. It is written here, into the
   archive, and the row is closed; the reaper then takes the container.
"""

import logging
from datetime import timedelta

from sqlalchemy import Engine as Database
from sqlmodel import col, select
from temporalio import activity

from activities.archiving import archive_log
from activities.bridge import TemporalBridge
from crewship import temporal
from crewship.clock import duration_ms, now, rfc3339
from crewship.contracts import RunError, deploy_workflow_id, run_workflow_id
from crewship.db import session as transaction
from crewship.errors import NotFound, Unavailable
from crewship.events import Draft
from crewship.models import Deployment, Host, Run
from crewship.settings import Settings
from crewship.storage import ObjectStore
from crewship.tail import TailPublisher

logger = logging.getLogger(__name__)

_GRACE = timedelta(seconds=30)
"""A row this young may be waiting for its workflow's start."""

_ENDED = RunError(
    code="infrastructure",
    message="Its workflow was ended from outside",
    hint="somebody terminated it in Temporal, or it failed there; start it again",
)


class AbandonedActivities:
    """Bound to the records, the object store and Temporal; may run on any worker."""

    def __init__(
        self, *, store: ObjectStore, database: Database, tail: TailPublisher, bridge: TemporalBridge, settings: Settings
    ) -> None:
        self._store, self._database, self._tail, self._bridge, self._settings = store, database, tail, bridge, settings

    @activity.defn
    def end_abandoned(self) -> int:
        """Tell runs and builds on lost hosts that these are lost, close what has no workflow; how many.

        Correctness: idempotent. The signal only sets a flag. A row that is closed already is left as it is; one is closed only
        when the workflow engine itself says that its workflow was there and has ended.
        """
        return self._tell_of_lost_hosts() + self._close_without_workflow()

    def _tell_of_lost_hosts(self) -> int:
        before = now() - timedelta(seconds=self._settings.host_lost_seconds)
        with transaction(self._database) as session:
            runs = session.exec(
                select(Run.id, Deployment.host)
                .join(Deployment, col(Deployment.id) == col(Run.deployment_id))
                .join(Host, col(Host.name) == col(Deployment.host))
                .where(col(Run.last_seq).is_(None), col(Run.launched_at).is_not(None), col(Host.checked_at) < before)
            ).all()
            builds = session.exec(
                select(Deployment.id, Deployment.host)
                .join(Host, col(Host.name) == col(Deployment.host))
                .where(col(Deployment.last_seq).is_(None), col(Host.checked_at) < before)
            ).all()
        lost = [(run_workflow_id(run), host) for run, host in runs]
        lost += [(deploy_workflow_id(build), host) for build, host in builds]
        for workflow_id, host in lost:
            try:
                self._bridge.signal(workflow_id, "host_lost", host)
            except NotFound:
                continue  # the other way, below
        return len(lost)

    def _close_without_workflow(self) -> int:
        before = now() - _GRACE
        with transaction(self._database) as session:
            runs = session.exec(select(Run.id).where(col(Run.last_seq).is_(None), col(Run.created_at) < before)).all()
            deployments = session.exec(
                select(Deployment.id).where(col(Deployment.last_seq).is_(None), col(Deployment.created_at) < before)
            ).all()
        rows = [(row, run_workflow_id(row)) for row in runs] + [(row, deploy_workflow_id(row)) for row in deployments]
        if not rows:
            return 0
        # One request for all; the few that it lacks (it may lag) are asked about one by one.
        running = self._bridge.run(temporal.running_workflows(self._bridge.client))
        closed = 0
        for row, workflow_id in rows:
            if workflow_id not in running and self._bridge.run(temporal.has_ended(self._bridge.client, workflow_id)):
                closed += self._closed(row, workflow_id)
            activity.heartbeat()
        return closed

    def _closed(self, row_id: str, workflow_id: str) -> int:
        """As ``_close``; a row that cannot be closed, such as one whose log has lost a segment, keeps none of the others."""
        try:
            return self._close(row_id, workflow_id)
        except Unavailable:
            raise  # then none of them can
        except Exception:
            logger.exception("%s cannot be closed", row_id)
            return 0

    def _close(self, row_id: str, workflow_id: str) -> int:
        with transaction(self._database) as session:
            row = session.get(Run, row_id) or session.get(Deployment, row_id)
        if row is None or row.last_seq is not None:
            return 0  # it closed its row itself, a moment ago
        at = now()
        error = _ENDED.model_dump()
        if isinstance(row, Run):
            took = duration_ms(row.started_at, at) if row.started_at is not None else 0
            terminal = Draft(rfc3339(at), "run.failed", {"duration_ms": took, "error": error, "truncated": True})
        else:
            terminal = Draft(rfc3339(at), "deployment.failed", {"deployment_id": row.id, "error": error})
        last_seq = archive_log(workflow_id, bridge=self._bridge, store=self._store, terminal=terminal)
        with transaction(self._database) as session:
            row = session.get(Run, row_id) or session.get(Deployment, row_id)
            if row is None or row.last_seq is not None:
                return 0
            if isinstance(row, Run):
                row.completed_at, row.duration_ms, row.output = at, took, None
                row.error = {**error, "traceback": row.traceback}
                row.traceback = None
            else:
                row.error = {**error, "traceback": (row.error or {}).get("traceback")}
            row.status, row.last_seq = "failed", last_seq
            session.add(row)
        self._tail.publish(workflow_id, b'{"closed":true}')
        return 1
