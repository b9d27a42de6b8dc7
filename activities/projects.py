"""Deleting a project."""

from sqlalchemy import Engine as Database
from sqlmodel import col, delete, select
from temporalio import activity

from activities.bridge import TemporalBridge
from activities.spares import Spares
from crewship import temporal
from crewship.builds import cache_volume
from crewship.contracts import CancelInput, ProjectRef, deploy_workflow_id, run_workflow_id
from crewship.db import session as transaction
from crewship.engine import Engine
from crewship.errors import NotFound
from crewship.models import (
    Activation,
    ApiKey,
    Artifact,
    BuildSecret,
    Deployment,
    EnvVar,
    Project,
    Run,
    RunLabel,
    Upload,
)
from crewship.objects import UPLOADS, deployment_prefix, run_prefix
from crewship.storage import ObjectStore


class ProjectActivities:
    """Each may be repeated: what is gone already is skipped."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        database: Database,
        bridge: TemporalBridge,
        engine: Engine,
        spares: Spares,
        instance: str,
    ) -> None:
        self._store, self._database, self._bridge = store, database, bridge
        self._engine, self._spares, self._instance = engine, spares, instance

    @activity.defn
    def stop_work(self, project: ProjectRef) -> int:
        """Ask what still runs or builds to stop; how many that are. Idempotent, as cancels are."""
        with transaction(self._database) as session:
            runs = session.exec(select(Run.id).where(Run.project == project.project, col(Run.last_seq).is_(None))).all()
            builds = session.exec(
                select(Deployment.id).where(Deployment.project == project.project, col(Deployment.last_seq).is_(None))
            ).all()
        open_work = [run_workflow_id(run) for run in runs] + [deploy_workflow_id(build) for build in builds]
        for workflow_id in open_work:
            try:
                self._bridge.signal(workflow_id, "cancel", CancelInput(force=True))
            except NotFound:
                self._close_unstarted(workflow_id)
        return len(open_work)

    @activity.defn
    def hosts(self, project: ProjectRef) -> list[str]:
        """Container hosts that may have images of the project."""
        with transaction(self._database) as session:
            return sorted(set(session.exec(select(Deployment.host).where(Deployment.project == project.project)).all()))

    @activity.defn
    def remove_images(self, project: ProjectRef) -> None:
        """Remove the project's spare containers, images and package cache on this host; idempotent."""
        with transaction(self._database) as session:
            deployments = session.exec(select(Deployment).where(Deployment.project == project.project)).all()
        for deployment in deployments:
            self._spares.discard(deployment.id)
            if deployment.image is not None:
                self._engine.remove_image(deployment.image)
        self._engine.remove_volume(cache_volume(self._instance, project.project))

    @activity.defn
    def remove_records(self, project: ProjectRef) -> None:
        """Remove objects and what Temporal knows first, rows second, the project's own row last; idempotent."""
        name = project.project
        with transaction(self._database) as session:
            runs = session.exec(select(Run.id).where(Run.project == name)).all()
            deployments = session.exec(select(Deployment).where(Deployment.project == name)).all()
            shared = set(session.exec(select(Deployment.source_key).where(Deployment.project != name)).all())
            for run_id in runs:
                self._store.delete_prefix(run_prefix(run_id))
            for deployment in deployments:
                self._store.delete_prefix(deployment_prefix(deployment.id))
                if deployment.source_key not in shared:
                    self._store.delete(deployment.source_key)
        self._store.delete_prefix(f"{UPLOADS}{name}/")
        workflows = [run_workflow_id(run) for run in runs] + [deploy_workflow_id(row.id) for row in deployments]
        self._bridge.run(temporal.delete_histories(self._bridge.client, name, workflows))
        with transaction(self._database) as session:
            of_project = select(Run.id).where(Run.project == name)
            for statement in (
                delete(Artifact).where(col(Artifact.run_id).in_(of_project)),
                delete(RunLabel).where(col(RunLabel.run_id).in_(of_project)),
                delete(Run).where(col(Run.project) == name),
                delete(Activation).where(col(Activation.project) == name),
                delete(Deployment).where(col(Deployment.project) == name),
                delete(EnvVar).where(col(EnvVar.project) == name),
                delete(BuildSecret).where(col(BuildSecret.project) == name),
                delete(ApiKey).where(col(ApiKey.project) == name),
                delete(Upload).where(col(Upload.project) == name),
                delete(Project).where(col(Project.name) == name),
            ):
                session.exec(statement)

    def _close_unstarted(self, workflow_id: str) -> None:
        """A row whose workflow never started, or ended without closing it: nothing of it is at work."""
        resource = workflow_id.partition("-")[2]
        with transaction(self._database) as session:
            row = session.get(Run, resource) or session.get(Deployment, resource)
            if row is not None and row.last_seq is None:
                row.last_seq = 0
                row.status = "canceled" if isinstance(row, Run) else "failed"
                session.add(row)
