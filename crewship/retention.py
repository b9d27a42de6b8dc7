"""What is kept and what goes: the plan as a pure function of what there is. Doing it is ``activities.garbage``.

A deployment keeps its image and its source while it is its project's current one, the one that a rollback without an id
goes to, one of the last ``keep_deployments`` that became ready, at work, or used by a run that has not ended. One that lost
them stays listed, and says so when somebody wants to go back to it. What an image is built on goes when no image needs it
any more and it is no help to the next build.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from crewship.contracts import Removal
from crewship.settings import Settings
from crewship.uploads import KEPT


@dataclass(frozen=True, slots=True)
class Policy:
    """Days are whole; 0 keeps for ever."""

    run_days: int
    log_days: int
    artifact_days: int
    audit_days: int
    keep_deployments: int
    build_cache_days: int

    def audit_cut(self, now: datetime) -> datetime | None:
        """Before which entries of the audit log go, a midnight of UTC: it is cut once a day and not at each round."""
        if self.audit_days == 0:
            return None
        return (
            (now - timedelta(days=self.audit_days)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        )

    @classmethod
    def of(cls, settings: Settings) -> "Policy":
        return cls(
            run_days=settings.run_retention_days,
            log_days=settings.log_retention_days,
            artifact_days=settings.artifact_retention_days,
            audit_days=settings.audit_retention_days,
            keep_deployments=settings.keep_deployments,
            build_cache_days=settings.build_cache_days,
        )


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run whose log is closed."""

    id: str
    ended_at: datetime
    has_log: bool
    """More of it than the terminal event."""
    has_artifacts: bool


@dataclass(frozen=True, slots=True)
class KnownDeployment:
    id: str
    project: str
    created_at: datetime
    ready_at: datetime | None
    """None of one that failed or is still at work."""
    is_open: bool
    """Its build has not ended."""
    is_used: bool
    """It is its project's current one, or where a rollback without an id goes, or a run of it has not ended."""
    image: str | None = None
    source_key: str = ""
    has_source: bool = True


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """A source of which parts have come."""

    name: str
    """``<project>/<digest>``."""
    touched_at: datetime | None
    """When one came last; None: there are parts that no upload has."""


@dataclass(frozen=True, slots=True)
class HostImage:
    """An image of this installation on a container host."""

    id: str
    size_bytes: int
    """Without what it is built on."""
    created_at: datetime
    deployment_id: str | None
    """None: of dependencies."""
    name: str
    is_used: bool
    """A container that is no spare was made from it."""
    is_parent_of: frozenset[str] = frozenset()
    """Ids of the images that are built on it, anybody's."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that the plan is made from; the parts that an activity does not deal with are empty."""

    audit_count: int = 0
    """Entries of the audit log that are older than the policy's cut."""
    deployments: tuple[KnownDeployment, ...] = ()
    runs: tuple[EndedRun, ...] = ()
    uploads: tuple[OpenUpload, ...] = ()
    images: tuple[HostImage, ...] = ()
    volumes: frozenset[str] = frozenset()
    """Of this installation, on the host, those that no container has."""
    networks: frozenset[str] = frozenset()
    """Of this installation, on the host, but the one that runs are attached to."""
    caches: Mapping[str, str] = field(default_factory=dict)
    """Volume → project whose packages it caches, of every project there is."""


def plan(there: Inventory, policy: Policy, now: datetime) -> list[Removal]:
    """What goes, in the order in which it can: what is built on something before that. Sizes of objects are not known here."""
    gone = superseded(there.deployments, policy.keep_deployments)
    return [
        *_audit(there.audit_count, policy, now),
        *_runs(there.runs, policy, now),
        *_sources(there.deployments, gone),
        *_uploads(there.uploads, now),
        *_images(there, gone, policy, now),
        *_volumes(there, policy, now),
        *(Removal(kind="network", name=name, why="runs are on another one") for name in sorted(there.networks)),
    ]


def superseded(deployments: Iterable[KnownDeployment], keep: int) -> dict[str, str]:
    """Deployments that keep neither image nor source → why."""
    going: dict[str, str] = {}
    ready: dict[str, int] = {}
    for deployment in sorted(deployments, key=lambda d: (d.ready_at or d.created_at, d.id), reverse=True):
        if deployment.is_open:
            continue
        if deployment.ready_at is None:
            going[deployment.id] = "it failed"
            continue
        ready[deployment.project] = ready.get(deployment.project, 0) + 1
        if ready[deployment.project] > keep and not deployment.is_used:
            going[deployment.id] = f"not among the last {keep} of {deployment.project}"
    return going


def _audit(count: int, policy: Policy, now: datetime) -> list[Removal]:
    cut = policy.audit_cut(now)
    if cut is None or count == 0:
        return []
    words = "1 entry is" if count == 1 else f"{count:,} entries are"
    why = f"{words} over {policy.audit_days} day{'s' if policy.audit_days > 1 else ''} old"
    return [Removal(kind="audit", name=cut.isoformat(), why=why)]


def _runs(runs: Iterable[EndedRun], policy: Policy, now: datetime) -> list[Removal]:
    going: list[Removal] = []
    for run in runs:
        if _is_older(run.ended_at, policy.run_days, now):
            going.append(Removal(kind="run", name=run.id, why=_days("it ended over", policy.run_days)))
            continue
        if run.has_artifacts and _is_older(run.ended_at, policy.artifact_days, now):
            going.append(Removal(kind="artifacts", name=run.id, why=_days("the run ended over", policy.artifact_days)))
        if run.has_log and _is_older(run.ended_at, policy.log_days, now):
            going.append(Removal(kind="log", name=run.id, why=_days("the run ended over", policy.log_days)))
    return going


def _sources(deployments: Iterable[KnownDeployment], gone: Mapping[str, str]) -> list[Removal]:
    """One upload may be that of several deployments: it goes with the last one that needs it."""
    needed = {deployment.source_key for deployment in deployments if deployment.id not in gone}
    going: dict[str, Removal] = {}
    for deployment in deployments:
        if deployment.has_source and deployment.source_key not in needed:
            why = f"of {deployment.id}: {gone[deployment.id]}"
            going.setdefault(deployment.source_key, Removal(kind="source", name=deployment.source_key, why=why))
    return list(going.values())


def _uploads(uploads: Iterable[OpenUpload], now: datetime) -> list[Removal]:
    going = []
    for upload in uploads:
        if upload.touched_at is None:
            going.append(Removal(kind="upload", name=upload.name, why="parts that no upload has"))
        elif upload.touched_at < now - KEPT:
            going.append(Removal(kind="upload", name=upload.name, why=_days("its last part came over", KEPT.days)))
    return going


def _images(there: Inventory, gone: Mapping[str, str], policy: Policy, now: datetime) -> list[Removal]:
    deployments = {deployment.id: deployment for deployment in there.deployments}
    going: dict[str, Removal] = {}
    for image in there.images:
        if image.deployment_id is None or image.is_used:
            continue
        deployment = deployments.get(image.deployment_id)
        if deployment is None:
            why = "its deployment is gone"
        elif deployment.id in gone:
            why = f"of {deployment.id}: {gone[deployment.id]}"
        elif deployment.image not in (image.id, None) and not deployment.is_open:
            why = f"{deployment.id} was built again"
        else:
            continue
        going[image.id] = Removal(kind="image", name=image.id, why=why, bytes=image.size_bytes)
    if not any(deployment.is_open for deployment in there.deployments):  # a build may be about to take one
        for image in there.images:
            if (
                image.deployment_id is None
                and not image.is_used
                and image.is_parent_of <= going.keys()
                and _is_older(image.created_at, policy.build_cache_days, now)
            ):
                why = _days("no deployment is built on it, and it was made over", policy.build_cache_days)
                going[image.id] = Removal(kind="dependencies", name=image.name, why=why, bytes=image.size_bytes)
    return list(going.values())


def _volumes(there: Inventory, policy: Policy, now: datetime) -> list[Removal]:
    latest: dict[str, datetime] = {}
    for deployment in there.deployments:
        latest[deployment.project] = max(latest.get(deployment.project, deployment.created_at), deployment.created_at)
    going: list[Removal] = []
    for name in sorted(there.volumes):
        project = there.caches.get(name)
        if project is None:
            going.append(Removal(kind="volume", name=name, why="no container and no project has it"))
        elif project not in latest or _is_older(latest[project], policy.build_cache_days, now):
            why = _days(f"{project} was deployed over", policy.build_cache_days)
            going.append(Removal(kind="volume", name=name, why=why))
    return going


def _is_older(moment: datetime, days: int, now: datetime) -> bool:
    return days > 0 and moment < now - timedelta(days=days)


def _days(words: str, days: int) -> str:
    return f"{words} {days} day{'s' if days > 1 else ''} ago"
