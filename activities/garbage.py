"""Does what ``crewship.retention`` plans: looks at what there is, has the plan made, and takes it one thing at a time.

Everything may be repeated: a round that was killed is done again by the next one. A row that points at something is changed
before that goes (a deployment says that its image is gone before it is), and a row that is a thing's only trace goes after it.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine as Database
from sqlalchemy import exists, func, or_, update
from sqlmodel import Session, col, delete, select
from temporalio import activity

from activities.spares import Spares
from crewship import archive, audit, retention
from crewship.builds import cache_volume
from crewship.clock import now
from crewship.contracts import GarbageInput, GarbageResult, Removal, run_workflow_id
from crewship.db import session as transaction
from crewship.engine import Engine
from crewship.errors import Conflict
from crewship.models import Artifact, AuditCut, AuditEntry, Deployment, Host, Project, Run, RunLabel, Upload
from crewship.objects import UPLOADS, archive_key, run_prefix
from crewship.projects import previous_deployment
from crewship.retention import EndedRun, HostImage, Inventory, KnownDeployment, OpenUpload, Policy
from crewship.settings import Settings
from crewship.storage import ObjectMissing, ObjectStore
from crewship.uploads import KEPT, Parts, forget

_AUDIT_BATCH = 5000
"""Entries that go in one transaction: others wait for SQLite's one writer."""


class GarbageActivities:
    """``collect_records`` may run on any worker, ``collect_on_host`` on that of the host whose engine is bound here.

    Args:
        discard_bench: Called with an image of dependencies before it is removed: what was started ahead for it holds it.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        store: ObjectStore,
        database: Database,
        spares: Spares,
        settings: Settings,
        discard_bench: Callable[[str], None] = lambda image: None,
    ) -> None:
        self._discard_bench = discard_bench
        self._engine, self._store, self._database, self._spares = engine, store, database, spares
        self._settings, self._policy = settings, Policy.of(settings)

    @activity.defn
    def collect_records(self, garbage: GarbageInput) -> GarbageResult:
        """Take audit entries, runs, artifacts, logs, sources and uploads that are not kept, ``limit`` at most.

        With ``dry_run`` it only tells.

        Correctness: idempotent. Only what belongs to closed runs and deployments is looked at.
        """
        with transaction(self._database) as session:
            deployments = _deployments(session)
            runs = _ended_runs(session, self._policy, garbage.limit + 1)
            uploads = {f"{row.project}/{row.source_sha256}": row.touched_at for row in session.exec(select(Upload))}
            entries = _old_entries(session, self._policy)
            hosts = sorted({*session.exec(select(Host.name)), *session.exec(select(Deployment.host).distinct())})
        there = Inventory(audit_count=entries, deployments=deployments, runs=runs, uploads=self._uploads(uploads))
        removals = retention.plan(there, self._policy, now())
        more = len(removals) > garbage.limit or len(runs) > garbage.limit
        removals = [self._sized(removal) for removal in removals[: garbage.limit]]
        if removals and not garbage.dry_run:
            self._note(garbage, removals)
            keyless = retention.superseded(deployments, self._policy.keep_deployments)
            for removal in removals:
                self._take_record(removal, set(keyless))
                activity.heartbeat()
        return GarbageResult(removals=removals, more=more, hosts=hosts)

    @activity.defn
    def collect_on_host(self, garbage: GarbageInput) -> GarbageResult:
        """Take images, volumes and networks of this installation on this host that are not kept; as ``collect_records``.

        Correctness: idempotent. A deployment is marked before its image goes, in a transaction that finds it neither current
        nor in use; what the engine says is in use stays until the next time.
        """
        with transaction(self._database) as session:
            deployments = _deployments(session)
            projects = session.exec(select(Project.name)).all()
        there = Inventory(
            deployments=deployments,
            images=tuple(self._images()),
            volumes=frozenset(self._engine.dangling_volumes()),
            networks=frozenset(self._engine.networks()) - {self._settings.network, self._settings.closed_network},
            caches={cache_volume(self._settings.instance, project): project for project in projects},
        )
        planned = retention.plan(there, self._policy, now())
        planned = [
            removal.model_copy(update={"host": self._settings.host})
            for removal in planned
            if removal.kind in ("image", "dependencies", "volume", "network")
        ]
        removals = planned[: garbage.limit]
        if not garbage.dry_run:
            of_image = {image.id: image.deployment_id for image in there.images}
            taken = []
            for removal in removals:
                if self._take_on_host(removal, of_image):
                    taken.append(removal)
                activity.heartbeat()
            removals = taken
            if taken:
                self._note(garbage, taken)
        return GarbageResult(removals=removals, more=len(planned) > garbage.limit)

    def _uploads(self, rows: dict[str, datetime]) -> tuple[OpenUpload, ...]:
        """Those of the database, and those that only the store knows: a part may come while its upload is dropped."""
        stray = {
            found.key.removeprefix(UPLOADS).rpartition("/")[0] for found in self._store.list(UPLOADS)
        } - rows.keys()
        return (
            *(OpenUpload(name, _aware(touched_at)) for name, touched_at in rows.items()),
            *(OpenUpload(name, None) for name in sorted(stray)),
        )

    def _note(self, garbage: GarbageInput, removals: Sequence[Removal]) -> None:
        """In the audit log: of records before they go, of a host's things after, for what is in use there stays."""
        with transaction(self._database) as session:
            audit.record(
                session,
                garbage.by,
                "garbage.removed",
                before={"removals": [removal.model_dump(exclude_none=True) for removal in removals]},
            )

    # --- records ------------------------------------------------------------------------------------------------------

    def _sized(self, removal: Removal) -> Removal:
        size: int | None = None
        match removal.kind:
            case "run":
                size = sum(found.size_bytes for found in self._store.list(run_prefix(removal.name)))
            case "artifacts":
                with transaction(self._database) as session:
                    total = select(func.sum(Artifact.size_bytes)).where(Artifact.run_id == removal.name)
                    size = int(session.exec(total).one() or 0)
            case "log":
                size = self._size_of(archive_key(run_workflow_id(removal.name)))
            case "source":
                size = self._size_of(removal.name)
            case "upload":
                size = sum(found.size_bytes for found in self._store.list(f"{UPLOADS}{removal.name}/"))
        return removal.model_copy(update={"bytes": size})

    def _size_of(self, key: str) -> int:
        try:
            return self._store.stat(key).size_bytes
        except ObjectMissing:
            return 0

    def _take_record(self, removal: Removal, sourceless: set[str]) -> None:
        take: dict[str, Callable[[str], None]] = {
            "audit": self._take_audit,
            "run": self._take_run,
            "artifacts": self._take_artifacts,
            "log": self._take_log,
            "upload": self._take_upload,
        }
        if removal.kind == "source":
            self._take_source(removal.name, sourceless)
        else:
            take[removal.kind](removal.name)

    def _take_audit(self, cut: str) -> None:
        """The cut comes first: the triggers let nothing go that is not older than one."""
        before = datetime.fromisoformat(cut)
        with transaction(self._database) as session:
            if session.exec(select(AuditCut).where(col(AuditCut.before) == before)).first() is None:
                session.add(AuditCut(before=before))
        old = select(AuditEntry.id).where(col(AuditEntry.at) < before).order_by(col(AuditEntry.id)).limit(_AUDIT_BATCH)
        taken = 1
        while taken:
            with transaction(self._database) as session:
                taken = session.exec(delete(AuditEntry).where(col(AuditEntry.id).in_(old))).rowcount
            activity.heartbeat()

    def _take_run(self, run_id: str) -> None:
        self._store.delete_prefix(run_prefix(run_id))
        with transaction(self._database) as session:
            for table in (Artifact, RunLabel):
                session.exec(delete(table).where(col(table.run_id) == run_id))
            session.exec(delete(Run).where(col(Run.id) == run_id))

    def _take_artifacts(self, run_id: str) -> None:
        self._store.delete_prefix(f"{run_prefix(run_id)}artifacts/")
        with transaction(self._database) as session:
            session.exec(delete(Artifact).where(col(Artifact.run_id) == run_id))
            session.exec(update(Run).where(col(Run.id) == run_id).values(artifact_count=0))

    def _take_log(self, run_id: str) -> None:
        try:
            archive.trim(self._store, run_workflow_id(run_id))
        except ObjectMissing:
            pass
        with transaction(self._database) as session:
            session.exec(update(Run).where(col(Run.id) == run_id).values(log_trimmed=True))

    def _take_upload(self, name: str) -> None:
        """Unless somebody has gone on with it since the plan was made."""
        project, _, sha256 = name.partition("/")
        parts = Parts(project, sha256, 0)
        with transaction(self._database) as session:
            is_over = forget(session, parts, untouched_since=now() - KEPT)
        if is_over:
            parts.drop(self._store)

    def _take_source(self, key: str, sourceless: set[str]) -> None:
        """Unless the same was uploaded anew since the plan was made; one that is at this very moment is built from nothing, fails
        and says so."""
        with transaction(self._database) as session:
            users = set(session.exec(select(Deployment.id).where(Deployment.source_key == key)))
        if users <= sourceless:
            self._store.delete(key)
            with transaction(self._database) as session:
                marked = update(Deployment).where(col(Deployment.id).in_(users))
                session.exec(marked.values(source_removed_at=now()))

    # --- the host -----------------------------------------------------------------------------------------------------

    def _images(self) -> Iterable[HostImage]:
        used = self._engine.images_in_use()
        for image in self._engine.images():
            yield HostImage(
                id=image.id,
                size_bytes=image.size_bytes,
                created_at=image.created_at,
                deployment_id=image.deployment_id,
                name=image.name,
                is_used=image.id in used,
                is_parent_of=image.is_parent_of,
            )

    def _take_on_host(self, removal: Removal, of_image: dict[str, str | None]) -> bool:
        """Whether it is gone."""
        match removal.kind:
            case "image":
                deployment_id = of_image[removal.name]
                if deployment_id is None or not self._give_up_image(deployment_id, removal.name):
                    return False
                self._spares.discard(deployment_id)
                return self._remove_image(removal.name)
            case "dependencies":
                self._discard_bench(removal.name)
                return self._remove_image(removal.name)
            case "volume":
                return self._engine.remove_volume(removal.name)
            case _:
                return self._engine.remove_network(removal.name)

    def _give_up_image(self, deployment_id: str, image: str) -> bool:
        """Mark the deployment, so that nothing is started of it any more; False when it has come into use since the plan."""
        with transaction(self._database) as session:
            project = select(Deployment.project).where(Deployment.id == deployment_id).scalar_subquery()
            # A write that changes nothing: it holds the project's pointer where it is until this transaction ends.
            session.exec(update(Project).where(col(Project.name) == project).values(name=Project.name))
            row = session.get(Deployment, deployment_id)
            if row is None or row.image != image:
                return True  # nobody's image any more
            current = session.get_one(Project, row.project, populate_existing=True).current_deployment_id
            is_running = session.exec(_open_runs().where(Run.deployment_id == deployment_id).limit(1)).first()
            if is_running or deployment_id in (current, previous_deployment(session, row.project)):
                return False
            row.image_removed_at = row.image_removed_at or now()
            session.add(row)
        return True

    def _remove_image(self, image: str) -> bool:
        try:
            self._engine.remove_image(image)
        except Conflict:
            return False
        return True


def _open_runs() -> Any:
    return select(Run.deployment_id).where(col(Run.last_seq).is_(None))


def _deployments(session: Session) -> tuple[KnownDeployment, ...]:
    used = set(session.exec(_open_runs().distinct()))
    for project, current in session.exec(select(Project.name, Project.current_deployment_id)):
        used |= {current, previous_deployment(session, project)}
    return tuple(
        KnownDeployment(
            id=row.id,
            project=row.project,
            created_at=_aware(row.created_at),
            ready_at=_aware(row.ready_at) if row.status == "ready" and row.ready_at is not None else None,
            is_open=row.last_seq is None,
            is_used=row.id in used,
            image=row.image,
            source_key=row.source_key,
            has_source=row.source_removed_at is None,
        )
        for row in session.exec(select(Deployment))
    )


def _old_entries(session: Session, policy: Policy) -> int:
    cut = policy.audit_cut(now())
    if cut is None:
        return 0
    return session.exec(select(func.count()).select_from(AuditEntry).where(col(AuditEntry.at) < cut)).one()


def _ended_runs(session: Session, policy: Policy, limit: int) -> tuple[EndedRun, ...]:
    """Closed runs of which something is due, the oldest first."""
    ended_at = func.coalesce(Run.completed_at, Run.created_at)

    def due(days: int) -> Any:
        return ended_at < now() - timedelta(days=days)

    has_log = (col(Run.last_seq) > 0) & col(Run.log_trimmed).is_(False)
    has_artifacts = exists().where(col(Artifact.run_id) == Run.id)
    conditions = [
        due(days) & condition
        for days, condition in (
            (policy.run_days, col(Run.last_seq).is_not(None)),
            (policy.log_days, has_log),
            (policy.artifact_days, has_artifacts),
        )
        if days > 0
    ]
    if not conditions:
        return ()
    query = select(Run.id, ended_at, has_log, has_artifacts).where(col(Run.last_seq).is_not(None), or_(*conditions))
    rows = session.exec(query.order_by(ended_at).limit(limit))
    return tuple(EndedRun(row[0], _aware(row[1]), bool(row[2]), bool(row[3])) for row in rows)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
