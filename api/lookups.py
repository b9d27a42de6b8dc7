"""Rows by what is in a path, as the caller may see them: what is another project's is not found."""

from sqlmodel import Session

from api.auth import Caller
from crewship.config_file import normalized_name
from crewship.errors import Conflict, InvalidConfig, InvalidRequest, NotFound
from crewship.models import Deployment, Project, Run


def check_project_name(name: str) -> str:
    """``name``, if a project may be called so.

    Raises:
        InvalidRequest: it may not; the hint has a name that would do.
    """
    try:
        suggestion = normalized_name(name)
    except InvalidConfig as error:
        raise InvalidRequest(error.detail, hint="lower-case letters, digits and hyphens, at most 63") from error
    if name != suggestion:
        raise InvalidRequest(
            f"{name!r} cannot be a project's name: lower-case letters, digits and single hyphens only",
            hint=f"{suggestion} would do",
        )
    return name


def get_project(session: Session, caller: Caller, name: str) -> Project:
    """Raises ``NotFound`` (``project_not_found``)."""
    project = session.get(Project, name) if caller.sees(name) and "\0" not in name else None
    if project is None:
        raise NotFound(f"There is no project {name!r}", code="project_not_found", hint="crewship projects list")
    return project


def require_live(project: Project) -> Project:
    """Raises ``Conflict`` when the project is being deleted: there is no new work for it."""
    if project.deleting:
        raise Conflict(
            f"Project {project.name!r} is being deleted",
            code="project_deleting",
            hint="wait until it is gone, then make it anew, or take another name",
        )
    return project


def get_deployment(session: Session, caller: Caller, deployment_id: str) -> Deployment:
    """Raises ``NotFound`` (``deployment_not_found``)."""
    deployment = session.get(Deployment, deployment_id) if "\0" not in deployment_id else None
    if deployment is None or not caller.sees(deployment.project):
        raise NotFound(
            f"There is no deployment {deployment_id!r}", code="deployment_not_found", hint="crewship deployments list"
        )
    return deployment


def get_run(session: Session, caller: Caller, run_id: str) -> Run:
    """Raises ``NotFound`` (``run_not_found``)."""
    run = session.get(Run, run_id) if "\0" not in run_id else None
    if run is None or not caller.sees(run.project):
        raise NotFound(f"There is no run {run_id!r}", code="run_not_found", hint="crewship runs list")
    return run
