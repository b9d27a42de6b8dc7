"""The project's pointer: which deployment is current, and the history of its switches.

A switch is one transaction with compare-and-set on the pointer, so two at the same time never interleave: one of them sees
the other's. The history is a chain: what a switch says was current before it is what the switch before it made current.
"""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import update
from sqlmodel import Session, col, select

from crewship import audit, environment
from crewship.clock import now
from crewship.contracts import Actor
from crewship.errors import Conflict, NotFound
from crewship.models import Activation, Deployment, Project

ActivationKind = Literal["deploy", "rollback", "promote"]
_ACTIONS: dict[ActivationKind, str] = {
    "deploy": "deployment.activated",
    "rollback": "deployment.rolled_back",
    "promote": "deployment.promoted",
}


@dataclass(frozen=True, slots=True)
class Switch:
    """What a switch did; ``previous`` is None for the first deployment."""

    deployment_id: str
    previous: str | None
    changed: bool
    env_version: int | None = None
    """Of the project from then on; ``previous_env_version`` up to then."""
    previous_env_version: int | None = None


def previous_deployment(session: Session, project: str) -> str | None:
    """The deployment that was current before the last switch, or None."""
    return session.exec(
        select(Activation.previous_deployment_id)
        .where(Activation.project == project)
        .order_by(col(Activation.id).desc())
        .limit(1)
    ).first()


def rollback_target(session: Session, project: str, deployment_id: str | None) -> Deployment:
    """The deployment that a rollback to ``deployment_id`` (None: the previous one) means.

    Raises:
        NotFound: no such project or deployment.
        Conflict: there is nothing to go back to, the target is not ready, or its image was removed.
    """
    if session.get(Project, project) is None:
        raise NotFound(f"There is no project {project!r}", code="project_not_found")
    if deployment_id is None:
        deployment_id = previous_deployment(session, project)
        if deployment_id is None:
            raise Conflict(
                f"Project {project!r} has no earlier deployment to go back to",
                code="no_previous_deployment",
                hint="crewship deployments list",
            )
    deployment = session.get(Deployment, deployment_id)
    if deployment is None or deployment.project != project:
        raise NotFound(
            f"Project {project!r} has no deployment {deployment_id!r}",
            code="deployment_not_found",
            hint="crewship deployments list",
        )
    if deployment.status != "ready":
        raise Conflict(
            f"Deployment {deployment_id} is {deployment.status}, not ready",
            code="deployment_not_ready",
            hint="crewship deployments list shows which are ready",
        )
    require_image(deployment)
    return deployment


def require_image(deployment: Deployment) -> None:
    """Raise ``Conflict`` (``image_missing``) when retention has taken the deployment's image."""
    if deployment.image_removed_at is not None:
        raise Conflict(
            f"The image of deployment {deployment.id} was removed: newer deployments have taken its place",
            code="image_missing",
            hint="deploy that version again: crewship deploy",
        )


def switch(
    session: Session,
    project: str,
    deployment_id: str,
    actor: Actor,
    *,
    kind: ActivationKind,
    key: str | None = None,
    with_env: bool = False,
) -> Switch:
    """Point ``project`` at ``deployment_id`` and record it, in the audit log too; nothing when it is current already.

    Args:
        actor: Who asked for it.
        kind: What it was asked for as.
        key: Of the call: one that was carried out is not carried out again, whatever is current by now.
        with_env: Whether the env vars become those that ``deployment_id`` last ran with, in the same transaction.

    Raises:
        NotFound: the project is gone.
        Conflict: the deployment's image was removed; looked at after the pointer is written, so that none is removed meanwhile.
    """
    while True:
        if key is not None and (done := _recorded(session, key)) is not None:
            return done
        previous = session.exec(select(Project.current_deployment_id).where(Project.name == project)).one_or_none()
        if previous == deployment_id:
            return Switch(deployment_id, previous, changed=False)
        pointer = update(Project).where(col(Project.name) == project)
        pointer = pointer.where(
            col(Project.current_deployment_id).is_(None)
            if previous is None
            else col(Project.current_deployment_id) == previous
        )
        if session.exec(pointer.values(current_deployment_id=deployment_id)).rowcount == 1:
            break
        session.rollback()
        if session.get(Project, project) is None:
            raise NotFound(f"There is no project {project!r}", code="project_not_found")
    deployment = session.get_one(Deployment, deployment_id, populate_existing=True)
    require_image(deployment)
    before = session.exec(select(Project.env_version).where(Project.name == project)).one()
    after = before
    if with_env and (wanted := environment.last_version_of(session, deployment)) is not None:
        after = environment.restore(session, project, wanted)
    session.add(
        Activation(
            project=project,
            kind=kind,
            key=key,
            deployment_id=deployment_id,
            previous_deployment_id=previous,
            env_version=after,
            previous_env_version=before,
            actor=actor.key_id or "",
            at=now(),
        )
    )
    audit.record(
        session,
        actor,
        _ACTIONS[kind],
        project=project,
        target=deployment_id,
        before={"current_deployment_id": previous} | ({"env_version": before} if after != before else {}),
        after={"current_deployment_id": deployment_id} | ({"env_version": after} if after != before else {}),
    )
    return Switch(deployment_id, previous, changed=True, env_version=after, previous_env_version=before)


def _recorded(session: Session, key: str) -> Switch | None:
    """What the switch of ``key`` did."""
    row = session.exec(select(Activation).where(Activation.key == key)).first()
    if row is None:
        return None
    return Switch(
        row.deployment_id, row.previous_deployment_id, True, row.env_version, row.previous_env_version
    )  # fmt: skip
