"""The project's pointer: which deployment is current, and the history of its switches.

A switch is one transaction with compare-and-set on the pointer, so two at the same time never interleave: one of them sees
the other's.
"""

from dataclasses import dataclass

from sqlalchemy import update
from sqlmodel import Session, col, select

from crewship import audit
from crewship.clock import now
from crewship.contracts import Actor
from crewship.errors import Conflict, NotFound
from crewship.models import Activation, Deployment, Project


@dataclass(frozen=True, slots=True)
class Switch:
    """What a switch did; ``previous`` is None for the first deployment."""

    deployment_id: str
    previous: str | None
    changed: bool


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
    session: Session, project: str, deployment_id: str, actor: Actor, action: str = "deployment.activated"
) -> Switch:
    """Point ``project`` at ``deployment_id`` and record it, in the audit log as ``action``; nothing when it is current already.

    Raises:
        NotFound: the project is gone.
        Conflict: the deployment's image was removed; looked at after the pointer is written, so that none is removed meanwhile.
    """
    while True:
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
    require_image(session.get_one(Deployment, deployment_id, populate_existing=True))
    session.add(
        Activation(
            project=project,
            deployment_id=deployment_id,
            previous_deployment_id=previous,
            actor=actor.key_id or "",
            at=now(),
        )
    )
    audit.record(
        session,
        actor,
        action,
        project=project,
        target=deployment_id,
        before={"current_deployment_id": previous},
        after={"current_deployment_id": deployment_id},
    )
    return Switch(deployment_id, previous, changed=True)
