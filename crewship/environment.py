"""Versions of a project's env vars: which one a deployment ran with, what differs between two, and going back to one.

A version is never changed: going back to one makes a new version with the values of that one. Values stay sealed but for the
moment in which two are compared, and no value leaves this module.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sqlmodel import Session, col, select, update

from crewship.clock import now
from crewship.db import env_rows
from crewship.models import Activation, Deployment, EnvVar, Project

Opened = Callable[[str, str], str]
"""A value in clear, given its sealed form and the context that it was sealed in (``crewship.sealing``)."""


@dataclass(frozen=True, slots=True)
class EnvDifference:
    """Names of variables that one version has and another has not, and of those with another value; each sorted."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def next_version(session: Session, project: str) -> int:
    """Make a version. It is the lock that keeps two changes apart: take it before anything is read that it depends on."""
    return int(
        session.exec(
            update(Project)
            .where(col(Project.name) == project)
            .values(env_version=col(Project.env_version) + 1)
            .returning(col(Project.env_version))
        ).scalar_one()
    )


def version_of(session: Session, deployment: Deployment) -> int | None:
    """The version that ``deployment`` runs with: the project's while it is current, else :func:`last_version_of`."""
    project = session.get_one(Project, deployment.project)
    if project.current_deployment_id == deployment.id:
        return project.env_version
    return last_version_of(session, deployment)


def last_version_of(session: Session, deployment: Deployment) -> int | None:
    """The version that was in force when ``deployment`` was last replaced as the current one; else that of its deploy.

    None: not known, of a deployment from before this was recorded.
    """
    left = session.exec(
        select(Activation.previous_env_version)
        .where(Activation.project == deployment.project, Activation.previous_deployment_id == deployment.id)
        .order_by(col(Activation.id).desc())
        .limit(1)
    ).first()
    return deployment.env_version if left is None else left


def difference(session: Session, project: str, before: int, after: int, opened: Opened) -> EnvDifference:
    """What has changed from version ``before`` to ``after``."""
    old, new = env_rows(session, project, before), env_rows(session, project, after)

    def is_same(name: str) -> bool:
        one, other = old[name].sealed, new[name].sealed
        context = f"{project}/{name}"
        # The same value is sealed in another way each time.
        return one == other or opened(one, context) == opened(other, context)

    return EnvDifference(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(name for name in old.keys() & new.keys() if not is_same(name))),
    )


def restore(session: Session, project: str, version: int) -> int:
    """Make a version with the values of ``version``, unless they are in force already; the version that is in force then.

    The project's row must be locked: by a write to it in this transaction.
    """
    current = session.exec(select(Project.env_version).where(Project.name == project)).one()
    wanted, there = env_rows(session, project, version), env_rows(session, project, current)
    if {name: row.sealed for name, row in wanted.items()} == {name: row.sealed for name, row in there.items()}:
        return current
    made = next_version(session, project)
    for name, row in there.items():
        if name not in wanted or wanted[name].sealed != row.sealed:
            row.until_version = made
            session.add(row)
    for name, row in wanted.items():
        if name not in there or there[name].sealed != row.sealed:
            session.add(
                EnvVar(
                    project=project,
                    name=name,
                    sealed=row.sealed,
                    preview=row.preview,
                    since_version=made,
                    updated_at=now(),
                )
            )
    return made
